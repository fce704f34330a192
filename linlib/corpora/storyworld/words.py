"""The words that vary from story to story and have no part in how the world works."""

NAMES = {
    "she": ("Anna", "Bella", "Clara", "Daisy", "Ella", "Fiona", "Grace", "Hanna", "Ivy", "Julia",
            "Kira", "Lily", "Mia", "Nora", "Olivia", "Penny", "Rosa", "Sara", "Tina", "Zoe"),
    "he": ("Adam", "Ben", "Carl", "Danny", "Eddie", "Finn", "George", "Henry", "Ivan", "Jack",
           "Karl", "Leo", "Max", "Noah", "Oscar", "Paul", "Robin", "Sam", "Tom", "Victor"),
}  # fmt: skip

COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "orange", "purple", "pink")
TRAITS = ("little", "kind", "brave", "shy", "curious", "cheerful", "quiet", "clever", "gentle",
          "young")  # fmt: skip
WEATHERS = ("sunny", "windy", "cloudy", "rainy", "cold", "warm", "foggy", "snowy")
TIMES = ("morning", "afternoon", "evening")
ORIGINS = ("mother", "father", "grandmother", "grandfather", "aunt", "uncle", "teacher", "sister",
           "brother", "neighbour")  # fmt: skip
SAD = ("sad", "worried", "upset", "afraid")
GLAD = ("happy", "proud", "glad", "thankful")
LESSONS = (
    "it is good to ask for help",
    "friends can do what we cannot do alone",
    "everybody is good at something",
    "kind words make good friends",
    "sharing makes every day better",
    "being patient is a kind of being strong",
)
THANKS = ("shared some {food} with {helper}", "made a card for {helper}",
          "sang a song for {helper}", "invited {helper} to dinner",
          "gave {helper} a big hug", "promised to help {helper} one day")  # fmt: skip
