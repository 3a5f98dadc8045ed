"""What the kernels of a run start with: device, seeds' determinism, offline switches. All of it in this one place."""

from __future__ import annotations

from kdcourse.course.exercises.progress import FILE_VARIABLE
from kdcourse.course.lessons import FOLDER_VARIABLE, LessonError, path_in
from kdcourse.course.settings import DEVICES
from kdcourse.labs import assets
from kdcourse.labs.assets import CACHE_VARIABLE

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",  # `evaluate` does not look at the other switch
}
"""What keeps a kernel from looking for a model hub; left out when assets come from it."""

ROOMY_MALLOC = {
    # glibc hands every freed megabyte back to the kernel and asks for it again in the next training step. Keeping it
    # saves page faults: a tenth to a half of the time of small models on a CPU. Other C libraries ignore these names.
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
}

DETERMINISTIC = {
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS gives the same sums every time only with a fixed workspace
    "NVIDIA_TF32_OVERRIDE": "0",  # float32 on a GPU is float32, as on a CPU
}
"""The same numbers in every run on one machine. The seeds themselves are the notebooks' parameter SEED."""

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}

COLLECT_CLAIMS = {"KDCOURSE_CLAIMS": "collect"}
"""A claim that does not hold is recorded and the lesson goes on, so that a report names all of them."""


def kernel_environment(device: str = "auto") -> dict[str, str]:
    """Variables that every kernel of the course should start with."""
    variables = ROOMY_MALLOC | DETERMINISTIC | _paths()
    if assets.source() == "embedded":
        variables |= OFFLINE
    return variables | (WITHOUT_GPU if device == "cpu" else {})


def _paths() -> dict[str, str]:
    """What names a path, as it is from here: a kernel starts in the folder of its lesson."""
    chosen = {name: path for name in (FOLDER_VARIABLE, FILE_VARIABLE) if (path := path_in(name))}
    return {name: str(path) for name, path in chosen.items()} | {CACHE_VARIABLE: str(assets.cache_dir().absolute())}


def device_name(device: str) -> str:
    """What `device` is on this machine: "cpu", or the name of the GPU.

    Raises:
        LessonError: it is none of `DEVICES`, or there is no such device here.
    """
    import torch

    if device not in DEVICES:
        raise LessonError(f"device is {device!r}; it can be {', '.join(DEVICES)}.")
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise LessonError(
            "device is 'cuda', but torch finds no GPU here; `kdcourse doctor` looks at it, --device cpu does without."
        )
    return torch.cuda.get_device_name()
