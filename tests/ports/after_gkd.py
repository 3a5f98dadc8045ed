"""GKD on conversations, as the documentation of TRL begins with it: student and teacher are loaded, and a trainer is
called with rows of `messages`. The models and the rows are paths on the command line:

    python gkd.py STUDENT TEACHER CONVERSATIONS OUTPUT

CONVERSATIONS is a folder with train.jsonl and test.jsonl. `lmbda=0`: no step on the student's own completions.
"""

import sys

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdcourse import DistillationArguments, DistillationTrainer

student_path, teacher_path, data_path, output_path = sys.argv[1:]

tokenizer = AutoTokenizer.from_pretrained(student_path)
model = AutoModelForCausalLM.from_pretrained(student_path)
teacher_model = AutoModelForCausalLM.from_pretrained(teacher_path)

files = {"train": f"{data_path}/train.jsonl", "test": f"{data_path}/test.jsonl"}
dataset = load_dataset("json", data_files=files)

training_args = DistillationArguments(
    output_dir=output_path, num_train_epochs=3, per_device_train_batch_size=12, learning_rate=1e-3, logging_steps=1,
    eval_strategy="epoch", save_strategy="no", report_to="none", bf16=False,
    alpha=0.0, temperature=1.0, divergence="jensen_shannon", beta=0.1,
)  # fmt: skip
trainer = DistillationTrainer(
    model=model,
    teacher=teacher_model,
    args=training_args,
    processing_class=tokenizer,
    train_dataset=dataset["train"],
    eval_dataset=dataset["test"],
)
trainer.train()
trainer.save_model(output_path)
