"""What each process of a distributed test of features runs: two steps with projections, saved by the first process."""

import sys
from pathlib import Path

import torch
from shapes import make_collator, make_model, make_rows, weights_of

from kdcourse import DistillationArguments, DistillationTrainer, Feature

WIDTH = 24
SHAPES = {
    "bert-classifier": (
        {"hidden_size": WIDTH},
        [Feature("bert.encoder.layer.0", "bert.encoder.layer.1"), Feature("bert.pooler", "bert.pooler", "cosine")],
    ),
    "gpt2-lm": ({"n_embd": WIDTH}, [Feature("hidden_states.1", "transformer.h.0", weight=2.0)]),
}


def train_features(folder, batch, accumulation):
    results = {}
    for shape, (wider, features) in SHAPES.items():
        arguments = DistillationArguments(
            str(folder), max_steps=2, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
            per_device_eval_batch_size=4, optim="sgd", learning_rate=0.1, max_grad_norm=0.5, logging_steps=1,
            report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True, alpha=0.4, temperature=2.0,
        )  # fmt: skip
        trainer = DistillationTrainer(
            make_model(shape), arguments, teacher=make_model(shape, seed=1, **wider), train_dataset=make_rows(shape),
            eval_dataset=make_rows(shape, 13, seed=1), data_collator=make_collator(shape), features=features,
        )  # fmt: skip
        trainer.train()
        losses = [log["feature_loss"] for log in trainer.state.log_history if "feature_loss" in log]
        losses.append(trainer.evaluate()["eval_feature_loss"])
        results[shape] = {
            "weights": weights_of(trainer.accelerator.unwrap_model(trainer.model)),
            "projections": weights_of(trainer.features.projections),
            "losses": torch.tensor(losses),
        }
    return results


if __name__ == "__main__":
    out, batch, accumulation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    results = train_features(out.parent, batch, accumulation)
    if torch.distributed.get_rank() == 0:
        torch.save(results, out)
    torch.distributed.destroy_process_group()
