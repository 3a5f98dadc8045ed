"""`kdcourse diagnose`: right losses of others are not accused, and each mistake is named as itself."""

import itertools
import json
import os
import sys
from pathlib import Path

import foreign_losses
import hostile_losses
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import nn
from typer.testing import CliRunner

import kdcourse
from kdcourse.course import cli
from kdcourse.course.diagnose import diagnose_loss
from kdcourse.course.diagnose.foreign import load, possible_roles, roles_of_names
from kdcourse.course.diagnose.report import QUESTIONS
from kdcourse.course.misuse import MisuseError

FOLDER = str(Path(__file__).parent)


def call(*arguments):
    return CliRunner().invoke(cli.app, ["diagnose", *arguments])


def loss(name):
    return getattr(foreign_losses, name)


RIGHT = {
    "hinton": {
        "direction": "forward_kl", "divisor": "rows", "hard_divisor": "labelled_rows", "t_squared": "yes",
        "weight": "labels", "ends": "yes", "sixteen_bits": "yes", "teacher_gradient": "no",
    },
    "by_params": {"direction": "forward_kl", "divisor": "rows", "t_squared": "yes", "weight": "teacher", "ends": "yes"},
    "AsModule": {"direction": "forward_kl", "divisor": "rows", "t_squared": "yes", "weight": "labels", "ends": "yes"},
    "two_weights": {"direction": "cross_entropy", "divisor": "rows", "t_squared": "yes", "weight": "labels"},
    "soft_only": {"direction": "forward_kl", "divisor": "rows", "t_squared": "yes", "identical": "zero"},
    "without_names": {"direction": "forward_kl", "divisor": "rows", "t_squared": "yes", "weight": "labels"},
    "of_tokens": {
        "direction": "reverse_kl", "divisor": "tokens", "hard_divisor": "tokens", "t_squared": "yes",
        "weight": "teacher", "shift": "once", "mask": "ignored", "nothing_supervised": "zero",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_wrong_is_said_of_a_right_loss(name):
    """A false alarm, after which nobody believes the next one."""
    report = diagnose_loss(loss(name))
    assert {question: report.get(question) for question in RIGHT[name]} == RIGHT[name]
    assert report.problems == []
    assert report["gradient"].answer == "yes"


MISTAKES = {
    "t_squared_missing": {"t_squared": "no"},
    "t_once": {"t_squared": "once"},
    "t_squared_divides": {"t_squared": "divides"},
    "t_squared_at_an_end": {"ends": "t_squared_goes_missing"},
    "t_squared_on_both": {"hard_t_squared": "yes"},
    "t_squared_on_the_value": {"gradient": "t_squared_on_the_value"},
    "mean_over_classes": {"divisor": "rows_and_classes"},
    "teacher_only_softened": {"softened": "teacher_only"},
    "not_softened": {"softened": "neither"},
    "multiplied": {"softened": "multiplied"},
    "hard_term_softened": {"hard": "softened"},
    "softmax_before_cross_entropy": {"hard": "softmax_twice"},
    "softmax_twice": {"direction": "softmax_twice"},
    "softmax_on_both_sides": {"direction": "probabilities_as_logs", "identical": "not_zero"},
    "log_on_both_sides": {"direction": "log_of_logs"},
    "raw_logits": {"direction": "raw_logits", "identical": "not_zero"},
    "softmax_with_flag": {"direction": "two_probabilities_log_target"},
    "flag_without_log": {"direction": "probability_target_as_log"},
    "terms_clamped": {"direction": "terms_clamped"},
    "softmax_over_the_batch": {"direction": "softmax_over_the_batch"},
    "teacher_twice": {"direction": "none"},
    "negative": {"scale": "negative"},
    "log_of_softmax": {"extreme_logits": "no"},
    "epsilon_inside": {"extreme_logits": "no"},
    "without_a_graph": {"gradient": "none"},
    "student_detached": {"gradient": "none"},
    "soft_term_detached": {"gradient": "none"},
    "divided_by_labelled_rows": {"divisor": "labelled_rows"},
    "label_zero": {"mask": "class_0"},
    "sixteen_bits": {"sixteen_bits": "always"},
    "in_place": {"in_place": "yes"},
    "weight_ignored": {"weight": "ignored"},
    "shifted_twice": {"shift": "twice"},
    "padding_teaches": {"mask": "padding_teaches"},
    "mask_not_shifted": {"mask": "not_shifted"},
    "nan_for_nothing": {"nothing_supervised": "nan"},
    "per_text": {"divisor": "texts"},
    "per_position": {"divisor": "positions_but_last"},
    "before_the_shift": {"divisor": "labels_before_the_shift"},
    "per_vocabulary": {"divisor": "tokens_and_vocabulary"},
    "mean_of_means": {"divisor": "text_means", "nothing_supervised": "nan"},
    "t_squared_missing_and_mean": {"t_squared": "no", "divisor": "rows_and_classes"},
    "swapped_and_t_once": {"t_squared": "once"},
    "softmax_twice_and_hard_softened": {"direction": "softmax_twice", "hard": "softened"},
    "padding_teaches_per_text": {"mask": "padding_teaches", "divisor": "texts"},
    "shifted_twice_per_vocabulary": {"shift": "twice", "divisor": "tokens_and_vocabulary"},
}
"""What is a problem; of a softmax with a wrong target, that identical models do not give 0, too."""


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_as_itself_and_as_nothing_else(name):
    """A diagnosis that is another one's, or that sees three faults where there is one."""
    report = diagnose_loss(loss(name))
    problems = {finding.question: finding.answer for finding in report.problems}
    consequence = {"identical": "not_zero"} if report.get("softened") == "teacher_only" else {}
    assert {**consequence, **problems} == {**consequence, **MISTAKES[name]}


NOTES = {
    "swapped": {"direction": "reverse_kl", "extreme_logits": "nan_gradient"},
    "in_bits": {"scale": "1.443"},
    "labels_smoothed": {"smoothing": "yes"},
    "divided_by_all_rows": {"hard_divisor": "rows"},
    "unlabelled_dropped": {"mask": "unlabelled_dropped"},
    "not_shifted": {"shift": "none"},
    "with_chance": {"direction": "random"},
    "jumps_at_the_ends": {"beta_ends": "jumps", "direction": "jensen_shannon"},
    "swapped_and_t_once": {"direction": "reverse_kl"},
    "smoothed_and_unlabelled_dropped": {"smoothing": "yes", "mask": "unlabelled_dropped"},
}
"""What may be meant, and has to be said all the same."""


@pytest.mark.parametrize("name", NOTES)
def test_what_may_be_meant_is_said(name):
    """A reverse KL by accident, which nobody hears of."""
    report = diagnose_loss(loss(name))
    assert {question: report.get(question) for question in NOTES[name]} == NOTES[name]


def test_the_numbers_show_it():
    """A verdict without evidence."""
    assert diagnose_loss(loss("t_squared_missing"))["t_squared"].number == pytest.approx(1 / 16)
    assert diagnose_loss(loss("t_squared_on_the_value"))["gradient"].number == pytest.approx(1 / 16)
    assert diagnose_loss(loss("mean_over_classes"))["divisor"].number == pytest.approx(1 / 2)
    assert diagnose_loss(loss("labels_smoothed"))["smoothing"].number == pytest.approx(0.1)
    assert diagnose_loss(loss("mask_not_shifted"))["mask"].lesson == "06"


@pytest.mark.parametrize("name", ["distillation_loss", "lm_distillation_loss", "token_distillation_loss"])
def test_the_library_is_as_it_says(name):
    """A probe that passes everything, or the losses of this package gone wrong."""
    report = diagnose_loss(
        getattr(kdcourse, name) if name != "token_distillation_loss" else kdcourse.loss.token_distillation_loss
    )
    wanted = {"direction": "forward_kl", "t_squared": "yes", "weight": "labels", "ends": "yes", "sixteen_bits": "yes"}
    assert {question: report.get(question) for question in wanted} == wanted
    assert report.problems == []
    assert report.get("ruled_out") == "yes"


def test_what_a_loss_wants_in_the_place_of_logits_is_found():
    """PyTorch's own loss accused of what its callers do."""
    report = diagnose_loss(nn.KLDivLoss(reduction="batchmean"))
    assert report.get("inputs") == "log_probabilities_and_probabilities"
    assert (report.get("direction"), report.get("divisor"), report.problems) == ("forward_kl", "rows", [])


def test_an_instance_is_asked_at_other_temperatures():
    """T² that cannot be seen, because the instance was made with one T."""
    report = diagnose_loss(foreign_losses.AsModule(3.0, 0.25))
    assert (report.get("t_squared"), report.get("weight")) == ("yes", "labels")


def test_a_temperature_that_is_built_in_is_found():
    """A number that stands in the middle of somebody's code."""

    def built_in(student, teacher, labels):
        soft = 16 * foreign_losses.kl(student / 4, teacher / 4).mean()
        return 0.3 * F.cross_entropy(student, labels) + 0.7 * soft

    report = diagnose_loss(built_in)
    assert (report.get("softened"), report.get("t_squared")) == ("built_in_4", "yes")
    assert report.problems == []


def test_beta_of_jensen_shannon_is_followed():
    """One beta that is right, and all others that are not."""
    report = diagnose_loss(lambda student, teacher, beta: loss("jumps_at_the_ends")(student, teacher, 1 - beta))
    assert "the student's share" in report["direction"].words


def test_a_loss_that_nobody_knows_is_told_by_what_it_does():
    """A guess, where "none that we know" would be honest."""

    def own(student, teacher, labels, alpha):
        return alpha * (student.sin() - teacher).pow(4).mean() + (1 - alpha) * F.cross_entropy(student, labels)

    report = diagnose_loss(own)
    assert (report.get("direction"), report.get("divisor"), report.get("gradient")) == ("unknown", "mean", "yes")
    assert report.get("weight") == "teacher"


SINGLE = [
    ({"softened": "teacher_only"}, ("softened", "teacher_only")),
    ({"softened": "student_only"}, ("softened", "student_only")),
    ({"softened": "multiplied"}, ("softened", "multiplied")),
    ({"divergence": "reverse_kl"}, ("direction", "reverse_kl")),
    ({"divergence": "softmax_twice"}, ("direction", "softmax_twice")),
    ({"divergence": "probabilities_as_logs"}, ("direction", "probabilities_as_logs")),
    ({"divergence": "terms_clamped"}, ("direction", "terms_clamped")),
    ({"divisor": "rows_and_classes"}, ("divisor", "rows_and_classes")),
    ({"divisor": "nothing"}, ("divisor", "nothing")),
    ({"power": 0}, ("t_squared", "no")),
    ({"power": 1}, ("t_squared", "once")),
    ({"power": -2}, ("t_squared", "divides")),
    ({"hard": "softened"}, ("hard", "softened")),
    ({"hard": "softmax_twice"}, ("hard", "softmax_twice")),
    ({"hard_power": 2}, ("hard_t_squared", "yes")),
    ({"sign": -1}, ("scale", "negative")),
    ({"smoothing": 0.1}, ("smoothing", "yes")),
    ({"weighs_teacher": True}, ("weight", "teacher")),
    ({"t_squared_at_the_end": False}, ("ends", "t_squared_goes_missing")),
    ({"t_squared_on_the_value": True}, ("gradient", "t_squared_on_the_value")),
    ({"detached": True}, ("gradient", "none")),
    ({"unlabelled_dropped": True}, ("mask", "unlabelled_dropped")),
    ({"missing_as_0": True}, ("mask", "class_0")),
]
"""One change to a right objective, and what is to be said of it."""
HIDDEN = [("power", "t_squared_at_the_end"), ("power", "t_squared_on_the_value")]
"""Without T² none can go missing."""
PAIRS = [
    (first, second)
    for first, second in itertools.combinations(SINGLE, 2)
    if first[1][0] != second[1][0] and (*first[0], *second[0]) not in HIDDEN
]


def not_named(pairs):
    """Those changes that are not named, where two are made at once."""
    missed = []
    for first, second in pairs:
        report = diagnose_loss(foreign_losses.Composed(**first[0], **second[0]))
        for question, answer in (first[1], second[1]):
            # A mean over labelled rows alone divides by those.
            if report.get(question).removeprefix("labelled_") != answer:
                missed.append((first[0], second[0], question, report.get(question)))
    return missed


def test_a_right_objective_of_the_composer_is_right():
    """Pairs of mistakes, of which one was always there."""
    report = diagnose_loss(foreign_losses.Composed())
    assert report.problems == []
    assert all(report.get(question) != answer for _, (question, answer) in SINGLE)


def test_two_mistakes_are_both_named():
    """A mistake that hides another one: a sample of the pairs."""
    assert not_named(PAIRS[::9]) == []


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KDCOURSE_DEEP"), reason="a minute; make test-deep")
def test_any_two_mistakes_are_both_named():
    """A mistake that hides another one: all pairs."""
    assert len(PAIRS) > 200
    assert not_named(PAIRS) == []


OF_TOKENS = {
    "mask_shift": [(0, ("mask", "not_shifted"))],
    "masked": [(False, ("mask", "padding_teaches"))],
    "safe": [(False, ("nothing_supervised", "nan"))],
    "count": [
        ("texts", ("divisor", "texts")), ("before", ("divisor", "labels_before_the_shift")),
        ("vocabulary", ("divisor", "tokens_and_vocabulary")), ("means", ("divisor", "text_means")),
    ],
    "twice": [(True, ("shift", "twice"))],
}  # fmt: skip
"""What can be made wrong in a language model's loss, and what is to be said of it."""


def pairs_of_tokens():
    """Two changes to two different things; a mask that is not used cannot be shifted wrongly."""
    changes = [(name, *change) for name, several in OF_TOKENS.items() for change in several]
    pairs = itertools.combinations(changes, 2)
    return [pair for pair in pairs if pair[0][0] != pair[1][0] and {pair[0][0], pair[1][0]} != {"mask_shift", "masked"}]


def not_named_of_tokens(pairs):
    hidden = []
    for pair in pairs:
        changes = {name: value for name, value, _ in pair}
        twice = changes.pop("twice", False)

        def wrong(s, t, labels, changes=changes, twice=twice):
            s, t, labels = (s[:, :-1], t[:, :-1], labels[:, 1:]) if twice else (s, t, labels)
            return foreign_losses.token_loss(s, t, labels, **changes)

        report = diagnose_loss(wrong, roles={"student": "s", "teacher": "t", "labels": "labels"})
        seen = [report.get(question) for _, _, (question, _) in pair]
        if seen != [answer for _, _, (_, answer) in pair]:
            hidden.append(([(name, value) for name, value, _ in pair], seen))
    return hidden


@pytest.mark.parametrize(
    ("name", "answers", "problems"),
    [
        (
            "OftenWritten",
            {"t_squared": "yes", "weight": "labels", "teacher_gradient": "no", "teacher_mode": "eval"},
            {"accumulation": "mean"},
        ),
        (
            "Constructed",
            {"t_squared": "yes", "weight": "labels", "teacher_gradient": "no", "divisor": "rows"},
            {"accumulation": "mean", "teacher_mode": "train"},
        ),
        ("CountsInPart", {"weight": "labels", "teacher_mode": "eval"}, {"accumulation": "in_part"}),
        ("Divided", {"accumulation": "mean_divided", "direction": "forward_kl"}, {}),
        (
            "OfOldTransformers",
            {"weight": "teacher", "teacher_gradient": "yes", "teacher_mode": "as_given"},
            {"accumulation": "refused", "t_squared": "no", "evaluation": "no_outputs"},
        ),
        ("Counting", {"accumulation": "counted", "shift": "once", "divisor": "tokens", "weight": "labels"}, {}),
    ],
)
def test_a_trainers_compute_loss_is_a_loss_as_well(name, answers, problems):
    """Four accumulation steps with four times the gradient, which no call of the loss alone shows."""
    report = diagnose_loss(loss(name))
    assert {question: report.get(question) for question in answers} == answers
    assert {finding.question: finding.answer for finding in report.problems} == problems


@pytest.mark.parametrize(
    ("name", "times"),
    [("OftenWritten", 4), ("Divided", 1), ("Counting", 1), ("Constructed", 4), ("CountsInPart", None)],
)
def test_the_step_in_pieces_has_its_number(name, times):
    """A verdict about accumulation without a step that was accumulated."""
    number = diagnose_loss(loss(name))["accumulation"].number
    assert 1.05 < number < 4 if times is None else number == pytest.approx(times, rel=1e-6)


def test_what_only_a_constructor_makes_is_named():
    """A Trainer that cannot be diagnosed, and nobody says why."""
    with pytest.raises(MisuseError, match=r"self\.criterion, which its constructor makes"):
        diagnose_loss(loss("AsksForMore"))


# ---------------------------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("outputs labels teacher_outputs", {"student": "outputs", "labels": "labels", "teacher": "teacher_outputs"}),
        ("s t y T lam", {"student": "s", "teacher": "t", "labels": "y", "temperature": "T", "weight": "lam"}),
        (
            "logits_s logits_t gt tau",
            {"student": "logits_s", "teacher": "logits_t", "labels": "gt", "temperature": "tau"},
        ),
        ("input target", {"student": "input", "teacher": "target"}),
        ("pred soft_targets targets", {"student": "pred", "teacher": "soft_targets", "labels": "targets"}),
        ("y_s y_t t", {"student": "y_s", "teacher": "y_t", "temperature": "t"}),
    ],
)
def test_names_are_understood(names, roles):
    """`t` for the temperature where it is the teacher."""
    assert roles_of_names(names.split(), {}) == roles


def test_a_name_that_means_nothing_has_no_role():
    """A number of workers that is taken for a weight."""
    assert possible_roles("num_workers") == []


def test_what_cannot_be_known_is_asked():
    """Student and teacher by the order in which they happen to stand."""
    with pytest.raises(MisuseError, match="--argument student=a"):
        diagnose_loss(lambda a, b: foreign_losses.kl(a, b).mean())
    asked = []

    def answer(what, names):
        asked.append(what)
        return names[-1]

    report = diagnose_loss(lambda a, b: foreign_losses.kl(b, a).mean(), ask=answer)
    assert (report.arguments, report.get("direction")) == ({"student": "b", "teacher": "a"}, "forward_kl")
    assert len(asked) == 2


def test_an_argument_may_be_named():
    """A name that means the opposite in somebody's house."""
    report = diagnose_loss(loss("kl"), roles={"student": "teacher", "teacher": "student"})
    assert report.get("direction") == "reverse_kl"
    with pytest.raises(MisuseError, match="no argument 'nobody'"):
        diagnose_loss(loss("kl"), roles={"teacher": "nobody"})


def test_a_loss_that_stops_is_told_with_its_own_words():
    """A traceback of a hundred lines."""

    def stops(student, teacher):
        raise KeyError("config")

    with pytest.raises(MisuseError, match="stops stopped with KeyError: 'config'"):
        diagnose_loss(stops)
    with pytest.raises(MisuseError, match="returned str, which is no loss"):
        diagnose_loss(lambda student, teacher: "loss")


def test_the_caller_keeps_their_random_numbers():
    """A diagnosis in the middle of a script that changes the script."""
    before = torch.get_rng_state()
    diagnose_loss(loss("with_chance"))
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------------------------------------------------------------
# What each library computes

ROOT = Path(__file__).parents[2]
FOUND = json.loads((ROOT / "docs" / "libraries.json").read_text(encoding="utf-8"))


def test_the_page_about_libraries_says_what_was_found():
    """A page that was edited by hand, or an answer that a word of the page no longer has."""
    page = load(f"{ROOT}/benchmarks/what_libraries_compute.py:page_of")(FOUND)
    assert (ROOT / "docs" / "libraries.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("title", "question", "answer"),
    [
        ("torchdistill", "ends", "t_squared_goes_missing"),
        ("TRL", "beta_ends", "jumps"),
        ("TRL", "accumulation", "counted"),
        ("TRL", "softened", "no_temperature"),
        ("TRL, `GKDTrainer.generalized", "sixteen_bits", "no"),
        ("TRL, `GKDTrainer.generalized", "t_squared", "no"),
        ("Liger", "t_squared", "no"),
        ("Liger", "weight", "labels"),
        ("ModelOpt", "divisor", "rows_and_classes"),
        ("torchtune", "direction", "cross_entropy"),
        ("torchtune", "nothing_supervised", "no_graph"),
        ("TextBrewer", "direction", "cross_entropy"),
    ],
)
def test_what_was_read_in_the_source_of_a_library_is_found_from_outside(title, question, answer):
    """A diagnosis that does not see what a reviewer saw."""
    first = next(each for name, each in FOUND["losses"].items() if name.startswith(title))
    assert {each["question"]: each["answer"] for each in first["findings"]}[question] == answer


# ---------------------------------------------------------------------------------------------------------------------
# The command


def test_promises_that_are_kept_are_fine(monkeypatch, tmp_path):
    """An exit code that stops a build for nothing; findings that only a person can read."""
    monkeypatch.syspath_prepend(FOLDER)
    out = tmp_path / "found.json"
    result = call(
        "foreign_losses:hinton", "--promise", "t_squared=yes", "--promise", "weight=labels", "--json", str(out)
    )
    assert result.exit_code == 0, result.output
    assert "T² is there" in result.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["arguments"]["labels"] == "targets"
    assert {each["question"] for each in found["findings"]} <= set(QUESTIONS)


def test_a_broken_promise_is_said_and_is_exit_code_1():
    """A loss that lost its T² in a refactoring, and a green build."""
    result = call(f"{FOLDER}/foreign_losses.py:t_squared_missing", "--promise", "t_squared=yes")
    assert result.exit_code == 1
    assert "t_squared was promised to be yes, and is no." in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",), ("no.such.module:loss",), ("kdcourse:no_such_loss",), ("kdcourse:__version__",),
        ("kdcourse:distillation_loss", "--argument", "techer=x"),
        ("kdcourse:distillation_loss", "--promise", "t_squared"), ("kdcourse:distillation_loss", "--promise", "tea=no"),
        (f"{FOLDER}/foreign_losses.py:kl", "--argument", "teacher=nobody"),
    ],
)  # fmt: skip
def test_what_cannot_be_diagnosed_is_a_sentence_and_exit_code_2(arguments):
    """A promise with a typing error, which is never broken."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.output.strip()


@pytest.mark.parametrize("name", hostile_losses.NOT_DIAGNOSED)
def test_a_hostile_loss_gets_a_sentence_and_exit_code_2(name, monkeypatch):
    """A traceback of the diagnosis, or a build that never ends."""
    monkeypatch.syspath_prepend(FOLDER)
    hostile_losses.CALLS.clear()
    result = call(f"hostile_losses:{name}", "--seconds", "0.5" if "ang" in name or name == "sleeps" else "20")
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.output.strip().startswith("✗")
    assert len(result.output) < 1000


@pytest.mark.parametrize("name", hostile_losses.DIAGNOSED)
def test_of_a_loss_that_is_hard_to_ask_what_can_be_said_is_said(name, capfd):
    """Pages on the screen, a false accusation, or an error that another loss of the same script runs into."""
    hostile_losses.CALLS.clear()
    settings = torch.get_default_dtype(), torch.is_grad_enabled(), sys.stdout, torch.get_rng_state().tolist()
    report = diagnose_loss(getattr(hostile_losses, name))
    question, answer = hostile_losses.DIAGNOSED[name]
    assert report.get(question) == answer
    assert {finding.question for finding in report.problems} <= {question, "gradient"}
    assert capfd.readouterr().out == ""
    after = torch.get_default_dtype(), torch.is_grad_enabled(), sys.stdout, torch.get_rng_state().tolist()
    assert [before == now for before, now in zip(settings, after, strict=True)] == [True] * 4


def test_a_loss_is_found_where_it_stands():
    """Only what is installed can be diagnosed."""
    assert load("kdcourse.loss:distillation_loss") is kdcourse.distillation_loss
    assert load(f"{FOLDER}/foreign_losses.py:AsModule.forward").__name__ == "forward"
