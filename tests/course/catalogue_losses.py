"""The mistakes of the exercises as losses of others, what is to be said of each, and which are no losses at all."""

import foreign_losses
import torch
from foreign_losses import kl
from foreign_signatures import at_random
from transformers import Trainer

from kdcourse.course.exercises import all_exercises

# ---------------------------------------------------------------------------------------------------------------------
# From what an exercise asks for to a loss


class ByHand(torch.autograd.Function):
    """The right value, with a gradient that somebody has derived."""

    @staticmethod
    def forward(ctx, student, teacher, temperature, gradient, divisor):
        ctx.save_for_backward(student, teacher)
        ctx.gradient = gradient
        return temperature**2 * kl(student / temperature, teacher / temperature).sum() / divisor

    @staticmethod
    def backward(ctx, outer):
        return outer * ctx.gradient(*ctx.saved_tensors), None, None, None, None


def of_gradients(own):
    return lambda student, teacher: ByHand.apply(student, teacher, 1.0, own, 1)


def of_softened_gradients(own):
    def loss(student, teacher, temperature):
        return ByHand.apply(student, teacher, temperature, lambda s, t: own(s, t, temperature), len(student))

    return loss


def of_sentences(own):
    """The mean over rows of what is asked about one, of lists."""

    def loss(student, teacher, labels, weight):
        rows = zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True)
        values = [own(p, q, label, weight) for p, q, label in rows]
        return torch.tensor(sum(values) / len(values), dtype=torch.float64)

    return loss


def of_pairs(own):
    """The mean over rows of what is asked about one, of lists of probabilities."""

    def loss(student, teacher):
        rows = zip(student.flatten(0, -2).tolist(), teacher.flatten(0, -2).tolist(), strict=True)
        values = [own(p, q) for p, q in rows]
        return torch.tensor(sum(values) / len(values), dtype=torch.float64)

    return loss


def in_order(own):
    """The arguments of an exercise stand in the order of its roles."""
    return lambda **given: own(*given.values())


ROLES = {
    "00.one_sentence": ("student teacher labels weight", of_sentences),
    "01.forward_kl": ("student teacher", in_order),
    "01.gradient": ("student teacher", of_gradients),
    "01.witness": ("student teacher", of_pairs),
    "02.kl_per_row": ("student teacher", in_order),
    "02.test": ("student teacher", in_order),
    "03.objective": ("student teacher labels weight temperature", in_order),
    "03.loop": ("student teacher labels weight temperature", in_order),
    "03.soft_gradient": ("student teacher temperature", of_softened_gradients),
    "04.semi": ("student teacher labels weight", in_order),
    "06.token_mean": (
        "student teacher labels",
        lambda own: lambda student, teacher, labels: own(kl(student, teacher), labels),
    ),
    "06.witness": (
        "student teacher labels",
        lambda own: (
            lambda student, teacher, labels: torch.tensor(
                own(kl(student, teacher).detach(), labels), dtype=torch.float64
            )
        ),
    ),
    "13.masked_kl": ("student teacher classes", in_order),
}
"""What the arguments of a loss are, and how it is made of what the exercise asks for."""


def of_trainer(own):
    """A compute_loss: the step has as many taught rows as labels, or as this piece has."""

    class Theirs(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            items = num_items_in_batch
            if items is not None:
                items = int(items), max(int(items), len(inputs["labels"]))
            return own(self, model, inputs, return_outputs, num_items_in_batch=items)

    return Theirs


def of_share(own):
    """A compute_loss whose labels' term is the share that is asked for."""

    class Theirs(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs["labels"]
            labelled = int((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)
            with torch.no_grad():
                teacher = self.teacher(**inputs).logits
            outputs = model(**inputs)
            soft = kl(outputs.logits, teacher).sum() / max(labelled, len(labels))
            hard = own(outputs.logits, labels, labelled, self.args.gradient_accumulation_steps)
            loss = self.args.alpha * hard + (1 - self.args.alpha) * soft
            return (loss, outputs) if return_outputs else loss

    return Theirs


TRAINERS = {"05.share": of_share, "05.trainer": of_trainer}
RESTATED = {
    ("03.loop", "teacher-in-the-graph"): foreign_losses.OfOldTransformers,
    ("03.loop", "teacher-not-in-eval-mode"): foreign_losses.Constructed,
}
"""Mistakes of a loop that a Trainer makes as well."""


def foreign(exercise, mistake, own, random):
    """A loss of others that makes a mistake of an exercise, in a signature that is drawn."""
    if (exercise, mistake) in RESTATED:
        return RESTATED[exercise, mistake]
    if exercise in TRAINERS:
        return TRAINERS[exercise](own)
    roles, made = ROLES[exercise]
    roles = roles.split()
    loss = made(own)
    return at_random(lambda **given: loss(**{role: given[role] for role in roles}), roles, random)


# ---------------------------------------------------------------------------------------------------------------------
# What is to be said

SAID = {
    "00.one_sentence": {
        "alpha-exchanged": ("weight", "teacher"), "student-first": ("direction", "reverse_kl"),
        "cross-entropy-instead": ("direction", "cross_entropy"), "minus-missing": ("hard", "negative"),
        "one-voice": ("mask", "one_voice"), "louder-without-a-label": ("mask", "louder_without_a_label"),
    },
    "01.forward_kl": {
        "turned-round": ("direction", "reverse_kl"), "zero-is-nan": ("ruled_out", "nan"),
        "cross-entropy": ("direction", "cross_entropy"), "clamped-terms": ("direction", "terms_clamped"),
        "mean-over-classes": ("divisor", "classes"), "rows-together": ("divisor", "nothing"),
        "sign": ("scale", "negative"),
    },
    "01.gradient": {
        "uphill": ("gradient", "negative"), "by-log-probs": ("gradient", "by_log_probabilities"),
        "hard-target": ("gradient", "of_teacher_argmax"), "reverse": ("gradient", "of_reverse_kl"),
        "divided-by-rows": ("gradient", "divided_by_rows"), "logit-difference": ("gradient", "of_logit_mse"),
    },
    "01.witness": {
        "the models exchanged": ("direction", "reverse_kl"),
        "the mean of both directions": ("direction", "symmetric_kl"),
        "cross-entropy, the entropy left in": ("direction", "cross_entropy"), "in bits": ("scale", "1.443"),
        "the mean over the classes": ("divisor", "rows_and_classes"),
        "negative terms cut off": ("direction", "terms_clamped"),
        "terms without their sign": ("direction", "terms_without_sign"),
        "half the squared difference over q": ("direction", "chi_square"),
        "NaN where the teacher says 0": ("ruled_out", "nan"),
    },
    "02.kl_per_row": {
        "softmax-on-both-sides": ("direction", "probabilities_as_logs"), "raw-logits": ("direction", "raw_logits"),
        "log-on-both-sides": ("direction", "log_of_logs"), "roles-exchanged": ("direction", "reverse_kl"),
        "teacher-twice": ("direction", "none"), "terms-clamped": ("direction", "terms_clamped"),
        "mean-over-classes": ("divisor", "classes"), "rows-together": ("divisor", "rows"),
        "softmax-with-flag": ("direction", "two_probabilities_log_target"),
        "flag-without-log": ("direction", "probability_target_as_log"),
    },
    "02.test": {
        "softmax on both sides": ("direction", "probabilities_as_logs"),
        "log on both sides": ("direction", "log_of_logs"),
        "the student's logits as they are": ("direction", "raw_logits"),
        "the teacher on both sides": ("direction", "none"),
        "the student without gradient": ("gradient", "none"), "the other direction": ("direction", "reverse_kl"),
        "mean over the classes": ("divisor", "rows_and_classes"), "sum over the rows": ("divisor", "nothing"),
        "the first row alone": ("direction", "some_rows"),
        "cross-entropy, its entropy left in": ("direction", "cross_entropy"),
        "softmax over the batch": ("direction", "softmax_over_the_batch"),
        "softmax, and then its logarithm": ("extreme_logits", "no"),
        "10⁻³ inside the logarithm": ("direction", "epsilon_0.001"),
        "the gradient of another loss": ("gradient", "of_probability_mse"),
    },
    "03.objective": {
        "t-squared-missing": ("t_squared", "no"), "t-squared-on-both": ("hard_t_squared", "yes"),
        "labels-softened": ("hard", "softened"), "alpha-turned-round": ("weight", "teacher"),
        "switch-at-alpha-0": ("ends", "t_squared_goes_missing"),
        "cross-entropy-instead": ("direction", "cross_entropy"), "mean-over-classes": ("divisor", "rows_and_classes"),
        "sum-over-rows": ("divisor", "nothing"), "softmax-on-both-sides": ("direction", "probabilities_as_logs"),
        "roles-exchanged": ("direction", "reverse_kl"), "teacher-not-softened": ("softened", "student_only"),
    },
    "03.loop": {
        "t-squared-missing": ("t_squared", "no"), "alpha-turned-round": ("weight", "teacher"),
        "labels-softened": ("hard", "softened"), "answers-instead-of-probabilities": ("direction", "teacher_argmax"),
        "teacher-in-the-graph": ("teacher_gradient", "yes"), "teacher-not-in-eval-mode": ("teacher_mode", "train"),
    },
    "03.soft_gradient": {
        "t-squared-missing": ("gradient", "t_squared_on_the_value"),
        "chain-rule-missing": ("gradient", "chain_rule_missing"), "no-power-left": ("gradient", "t_once_missing"),
        "not-softened": ("gradient", "softened_neither"),
        "student-not-softened": ("gradient", "softened_teacher_only"),
        "uphill": ("gradient", "negative"), "sum-over-rows": ("gradient", "sum_of_rows"),
    },
    "04.semi": {
        "both-by-batch": ("hard_divisor", "rows"), "both-by-labelled": ("divisor", "labelled_rows"),
        "unlabelled-dropped": ("mask", "unlabelled_dropped"), "label-zero": ("mask", "class_0"),
        "nan": ("nothing_supervised", "nan"),
        "cross-entropy-instead": ("direction", "cross_entropy"),
    },
    "05.share": {
        "mean": ("accumulation", "in_part"), "mean-over-steps": ("accumulation", "mean_over_steps"),
        "divided-twice": ("hard_divisor", "labelled_rows_and_labelled_rows"),
        "unlabelled-rows-counted": ("hard_divisor", "rows"),
        "share-divided-by-steps": ("accumulation", "divided_by_steps"),
    },
    "05.trainer": {
        "labels-for-the-teacher": ("teacher_told", "labels"), "teacher-in-the-graph": ("teacher_gradient", "yes"),
        "the-trainers-own-model": ("student_asked", "its_own"), "means": ("accumulation", "mean"),
        "hard-term-of-forward": ("accumulation", "in_part"), "one-count": ("divisor", "labelled_rows"),
        "labelled-rows-alone": ("mask", "unlabelled_dropped"), "t-squared-missing": ("t_squared", "no"),
        "alpha-on-the-teacher": ("weight", "teacher"), "labels-popped": ("in_place", "labels_popped"),
        "outputs-forgotten": ("evaluation", "no_outputs"), "no-count": ("evaluation", "needs_a_count"),
        "student-without-gradient": ("gradient", "none"),
    },
    "06.witness": {
        "the mask is not shifted": ("shift", "none"), "shifted the other way": ("counted", "backwards"),
        "rolled: the first label stands at the last position": ("counted", "rolled"),
        "prompt and padding count": ("mask", "padding_teaches"), "a mean of each text first": ("divisor", "text_means"),
        "divided by the texts": ("divisor", "texts"), "divided by all positions": ("divisor", "positions_but_last"),
        "divided by all labels, those at position 0 too": ("divisor", "labels_before_the_shift"),
        "labels above 0 count, and no others": ("counted", "zero_ignored"),
        "multiplied by a mask of 0 and 1": ("nothing_supervised", "nan"),
    },
    "06.token_mean": {
        "mask-not-shifted": ("shift", "none"), "no-mask": ("mask", "padding_teaches"),
        "divided-by-texts": ("divisor", "texts"), "divided-by-positions": ("divisor", "positions_but_last"),
        "mean-of-means": ("divisor", "text_means"), "nan-for-nothing": ("nothing_supervised", "nan"),
        "counted-before-the-shift": ("divisor", "labels_before_the_shift"),
    },
    "13.masked_kl": {
        "infinite-minus-infinite": ("class_mask", "nan"),
        "masked-after-softmax": ("class_mask", "masked_after_softmax"),
        "logit-of-zero": ("class_mask", "logit_of_zero"), "teacher-only": ("class_mask", "teacher_only"),
        "student-only": ("class_mask", "student_only"), "nobody-ruled-out": ("class_mask", "unused"),
    },
}  # fmt: skip
"""The answer that is a mistake's own name; of a witness and of a test, that of each formula to be told apart."""

NO_LOSSES = {
    "00.soft_label": "It makes a label of votes; the loss comes after it.",
    "04.fault": "It is about the log of a run, in which a loss has one number for each step.",
    "05.collate": "It makes the batch; a loss is given what it made.",
    "06.labels": "It makes the labels. A loss is told which tokens have one, and cannot know which should.",
    "07.interval": "It is about accuracies of runs that are over.",
    "07.decide": "It is about which runs to make.",
    "10.budget": "It is about what a run costs, whatever its loss.",
    "10.reduce": "It puts together what pieces of a step have computed; the loss of a piece comes before it.",
    "09.loop": "The student writes in it; a loss is handed a text that is there.",
    "09.witness": "It is about which tokens are judged. A loss is told that, and cannot know which should be.",
    "08.perplexity": "It is about a number that is computed after training, of batches whose losses are right.",
    "08.curve": "It is about the log of a run, in which a loss has one number for each step.",
    "11.bias": "It is about a number that is added after training.",
    "11.mix": "It is about what teachers say together, before a loss is told of it.",
    "12.unfair": "It is about the log of a comparison, whose runs are over.",
    "12.decide": "It is about which runs to make, and what they show.",
    "13.kept": "It is about the columns of a data set, before there is a batch.",
    "13.first_look": "It is about predictions and labels of a data set.",
}
"""Exercises without a loss in them, and why there is nothing to diagnose."""

NOT_OF_THE_LOSS = {
    ("03.loop", "gradients-added-up"): "The loop forgets optimizer.zero_grad(); its loss is right.",
    (
        "03.loop",
        "student-not-in-train-mode",
    ): "The mode of the student is its caller's; compute_loss is handed the model.",
    ("04.semi", "louder-without-a-label"): "Right in each batch with a label; how loud one without is, nobody asks.",
    ("05.trainer", "nan"): "It is right wherever a count is handed over, as in each step that is diagnosed.",
    ("03.loop", "seed-forgotten"): "The batches are drawn before there is a loss of them.",
}
"""Mistakes beside a loss that is right."""


def mistakes_of(exercise):
    """From the name of each mistake to the code that makes it; of a witness and a test, those to be told apart."""
    for several in ("suspects", "mutants"):
        if hasattr(exercise, several):
            return {each.name: each.function for each in getattr(exercise, several)}
    named = {each.name: each.wrong for each in exercise.misconceptions}
    if exercise.id == "03.loop":
        return {name: getattr(wrong, "keywords", {}).get("loss", wrong) for name, wrong in named.items()}
    return named


def right_of(exercise):
    """Code that is right."""
    if hasattr(exercise, "right"):
        return exercise.right[0].function
    if exercise.id == "03.loop":
        return all_exercises()["03.objective"].reference
    return exercise.reference
