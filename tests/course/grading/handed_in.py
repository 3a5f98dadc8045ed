"""Notebooks as learners hand them in: right, blank, wrong in known ways, and hostile."""

import json
import re
import stat
import zipfile

from kdcourse.course.lessons import course_lessons

CHECK = re.compile(r'exercises\.check\("([\w.]+)", (\w+)\)')
VERIFY = re.compile(r'exercises\.verify\("([\w.]+)", (\w+)\)')

FAULTS = [
    ("00.soft_label", "hard-label", "return float(sum(n * (i - 4) for i, n in enumerate(votes)) > 0)"),
    ("00.soft_label", "neutral-left-out", "return sum(votes[5:]) / (sum(votes[:4]) + sum(votes[5:]))"),
    ("00.soft_label", "neutral-is-negative", "return sum(votes[5:]) / sum(votes)"),
    ("00.soft_label", "counts", "return sum(votes[5:]) + 0.5 * votes[4]"),
    ("00.one_sentence", "minus-missing", (
        "import math\nkl = sum(b * math.log(b / a) for a, b in zip(p, q))\n"
        "return alpha * (0 if y == -100 else math.log(p[y])) + (1 - alpha) * kl")),
    ("00.one_sentence", "cross-entropy-instead", (
        "import math\nce = -sum(b * math.log(a) for a, b in zip(p, q))\n"
        "return alpha * (0 if y == -100 else -math.log(p[y])) + (1 - alpha) * ce")),
    ("01.forward_kl", "turned-round",
     "return torch.nn.functional.kl_div(teacher_log_probs, student_log_probs.exp(), reduction='none').sum(-1)"),
    ("01.forward_kl", "cross-entropy", "return -(teacher_log_probs.exp() * student_log_probs).sum(dim=-1)"),
    ("01.gradient", "uphill", "return teacher_logits.softmax(-1) - student_logits.softmax(-1)"),
    ("01.gradient", "logit-difference", "return student_logits - teacher_logits"),
    ("02.kl_per_row", "raw-logits",
     "return torch.nn.functional.kl_div(student_logits, teacher_logits.softmax(-1), reduction='none').sum(-1)"),
    ("02.kl_per_row", "teacher-twice", (
        "q = teacher_logits.softmax(-1)\n"
        "return torch.nn.functional.kl_div(q.log(), q, reduction='none').sum(-1)")),
    ("02.kl_per_row", "mean-over-classes", (
        "p, q = student_logits.log_softmax(-1), teacher_logits.softmax(-1)\n"
        "return torch.nn.functional.kl_div(p, q, reduction='none').mean(-1)")),
    ("03.soft_gradient", "not-softened",
     "return (student_logits.softmax(-1) - teacher_logits.softmax(-1)) / len(student_logits)"),
    ("03.soft_gradient", "sum-over-rows", (
        "p, q = (student_logits / temperature).softmax(-1), (teacher_logits / temperature).softmax(-1)\n"
        "return temperature * (p - q)")),
    ("03.objective", "t-squared-missing", (
        "F, T = torch.nn.functional, temperature\n"
        "soft = F.kl_div((student_logits / T).log_softmax(-1), (teacher_logits / T).softmax(-1),"
        " reduction='batchmean')\n"
        "return alpha * F.cross_entropy(student_logits, labels) + (1 - alpha) * soft")),
    ("03.objective", "alpha-turned-round", (
        "F, T = torch.nn.functional, temperature\n"
        "soft = T**2 * F.kl_div((student_logits / T).log_softmax(-1), (teacher_logits / T).softmax(-1),"
        " reduction='batchmean')\n"
        "return (1 - alpha) * F.cross_entropy(student_logits, labels) + alpha * soft")),
    ("06.labels", "masked-by-pad-id", (
        "labels = input_ids.clone()\nlabels[(attention_mask == 0) | (input_ids == 0)] = -100\n"
        "for row, n in enumerate(prompt_tokens):\n"
        "    first = int(attention_mask[row].argmax())\n    labels[row, first:first + n] = -100\nreturn labels")),
    ("06.labels", "prompt-labelled", "return input_ids.masked_fill(attention_mask == 0, -100)"),
    ("06.token_mean", "divided-by-positions", (
        "counts = labels[:, 1:] != -100\nreturn (divergences[:, :-1] * counts).sum() / counts.numel()")),
]  # fmt: skip
"""Exercise, mistake, and the body of a function that makes it; written here, and not taken from the exercises."""

RIGHT = {
    "00.soft_label": "return (sum(votes[5:]) + 0.5 * votes[4]) / sum(votes)",
    "01.forward_kl": (
        "q = teacher_log_probs.exp()\n"
        "return torch.where(q > 0, q * (teacher_log_probs - student_log_probs), torch.zeros_like(q)).sum(-1)"
    ),
    "02.kl_per_row": (
        "return torch.nn.functional.kl_div(student_logits.log_softmax(-1), teacher_logits.log_softmax(-1),"
        " reduction='none', log_target=True).sum(-1)"
    ),
}
"""Bodies of right answers, by another hand than the exercises'."""

HEADS = {
    "00.soft_label": "soft_label(votes)", "00.one_sentence": "one_sentence(p, q, y, alpha)",
    "01.forward_kl": "my_forward_kl(student_log_probs, teacher_log_probs)",
    "01.gradient": "my_gradient(student_logits, teacher_logits)",
    "02.kl_per_row": "kl_per_row(student_logits, teacher_logits)",
    "03.soft_gradient": "my_soft_gradient(student_logits, teacher_logits, temperature)",
    "03.objective": "kd_loss(student_logits, teacher_logits, labels, alpha, temperature)",
    "03.loop": "distill(student, teacher, images, labels, *, alpha, temperature, steps, seed)",
    "06.labels": "causal_labels(input_ids, attention_mask, prompt_tokens)",
    "06.token_mean": "token_mean(divergences, labels)",
}  # fmt: skip


def function(exercise, body):
    """The definition with this body."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import torch\n\n\ndef {HEADS[exercise]}:\n{lines}\n"


def lesson(number):
    """A lesson as it is handed out, as plain JSON: no solutions, no outputs."""
    (path,) = [each.path for each in course_lessons() if each.number == number]
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"] = [cell for cell in content["cells"] if "solution" not in cell["metadata"].get("tags", [])]
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    return content


def answered(number, codes):
    """A lesson in which these exercises have these definitions, by id, before their checks."""
    content = lesson(number)
    for cell in content["cells"]:
        found = CHECK.search(cell["source"]) if "exercise" in cell["metadata"].get("tags", []) else None
        if found and found[1] in codes:
            cell["source"] = f"{codes[found[1]]}\n\n{found[0]}\n"
    return content


def solved(number):
    """A lesson answered with the course's own solutions."""
    (path,) = [each.path for each in course_lessons() if each.number == number]
    content = json.loads(path.read_text(encoding="utf-8"))
    solutions = {}
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if found := VERIFY.search(source) if "solution" in cell["metadata"].get("tags", []) else None:
            solutions[found[1]] = (source[: found.start()], found[2])
    content = lesson(number)
    for cell in content["cells"]:
        found = CHECK.search(cell["source"]) if "exercise" in cell["metadata"].get("tags", []) else None
        if found:
            code, name = solutions[found[1]]
            cell["source"] = f'{code}\nexercises.check("{found[1]}", {name})\n'
    return content


def one(exercise, body):
    """A lesson of which one exercise is answered with this body."""
    return answered(exercise.partition(".")[0], {exercise: function(exercise, body)})


def handed_in(folder, files):
    """Write notebooks by name; folders are made."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def archive(path, members, compression=zipfile.ZIP_STORED):
    """A zip archive of names and texts; a text of None is a link to /etc/passwd."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        for name, text in members.items():
            info = zipfile.ZipInfo(name or "?")
            info.filename, info.compress_type = name, compression
            if text is None:
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            made.writestr(info, "/etc/passwd" if text is None else text)
