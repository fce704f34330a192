"""Fine-tuning (section 3.3): classification and reward modelling, with controls."""

from linlib.finetune.controls import control_rows, texts_of
from linlib.finetune.data import ALL_TASKS, chance_of, rows_of_tasks
from linlib.finetune.jobs import FineTuningJob, FineTuningResult, run_jobs
from linlib.finetune.recipe import LANGUAGE_MODEL, SHUFFLED, TASK, TRAININGS, FineTuning
from linlib.finetune.tasks import CLASSIFICATION, TASK_NAMES, Encoded, encode
from linlib.finetune.train import Base, FineTuned, count_correct, fine_tune

__all__ = [
    "ALL_TASKS",
    "CLASSIFICATION",
    "LANGUAGE_MODEL",
    "SHUFFLED",
    "TASK",
    "TASK_NAMES",
    "TRAININGS",
    "Base",
    "Encoded",
    "FineTuned",
    "FineTuning",
    "FineTuningJob",
    "FineTuningResult",
    "chance_of",
    "control_rows",
    "count_correct",
    "encode",
    "fine_tune",
    "rows_of_tasks",
    "run_jobs",
    "texts_of",
]
