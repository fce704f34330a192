"""What a decoder can do: tasks and perplexity by lm-evaluation-harness, and stories judged."""
