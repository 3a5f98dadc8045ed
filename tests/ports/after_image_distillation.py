"""What Hugging Face's guide to knowledge distillation for computer vision builds: a trainer of one's own, for a
MobileNetV2 that begins with random weights and learns from labels and from a ViT. Paths are on the command line:

    python image_distillation.py TEACHER PICTURES OUTPUT

PICTURES is a folder of parquet files whose rows have `image` and `labels`. Three things are as the guide's users have
them today, since transformers 5 refuses the guide's own: `num_items_in_batch`, `args=` and `processing_class=`. There
is no hub, no tensorboard and no fp16.
"""

import sys

import evaluate
import numpy as np
from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, DefaultDataCollator
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

teacher_path, data_path, output_path = sys.argv[1:]

teacher_processor = AutoImageProcessor.from_pretrained(teacher_path)
pictures = load_dataset(data_path).map(lambda rows: teacher_processor(rows["image"]), batched=True)
num_labels = pictures["train"].features["labels"].num_classes

accuracy = evaluate.load("accuracy")


def compute_metrics(evaluated):
    return accuracy.compute(predictions=np.argmax(evaluated.predictions, axis=1), references=evaluated.label_ids)


from kdcourse import DistillationArguments, DistillationTrainer

teacher_model = AutoModelForImageClassification.from_pretrained(teacher_path, num_labels=num_labels)
student_config = MobileNetV2Config()
student_config.num_labels = num_labels
student_model = MobileNetV2ForImageClassification(student_config)

training_args = DistillationArguments(
    output_dir=output_path, num_train_epochs=3, per_device_train_batch_size=12, logging_strategy="epoch",
    eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="accuracy",
    report_to="none",
    alpha=0.5, temperature=5,
)  # fmt: skip
trainer = DistillationTrainer(
    model=student_model, teacher=teacher_model, args=training_args,
    train_dataset=pictures["train"], eval_dataset=pictures["validation"], data_collator=DefaultDataCollator(),
    processing_class=teacher_processor, compute_metrics=compute_metrics,
)  # fmt: skip
trainer.train()
print(trainer.evaluate(pictures["test"]))
