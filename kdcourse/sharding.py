"""A teacher whose weights are spread over processes (FSDP2), for one that fits into no single device.

Under FSDP, the Trainer shards what it trains, and leaves a teacher whole in each process. A teacher has no optimizer,
so torch's own `fully_shard` is all that it needs: each block is gathered where it is used, and given back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from torch import distributed, nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Model = TypeVar("Model", bound=nn.Module)


def shard_teacher(teacher: Model, blocks: Iterable[str] | None = None, mesh: DeviceMesh | None = None) -> Model:
    """Spread a teacher's weights over all processes, in place.

    Args:
        teacher: whole, with the same weights in each process, and on the device that it will compute on.
        blocks: names of the classes whose modules are gathered at a time; those that transformers says must not be
            split, if nothing is said.
        mesh: the processes to spread over; all of them, if nothing is said.

    Returns:
        The teacher, to be passed as `teacher=`. Create the training's arguments first: they open the process group.

    Raises:
        ValueError: there is no process group yet, or no such block.
    """
    from torch.distributed.fsdp import fully_shard

    if not distributed.is_initialized():
        raise ValueError(
            "There is no process group to spread the teacher over. Start with torchrun or accelerate launch, and "
            "create DistillationArguments before this call."
        )
    names = set(getattr(teacher, "_no_split_modules", None) or ()) if blocks is None else set(blocks)
    found = [module for module in teacher.modules() if type(module).__name__ in names]
    if not found:
        said = ", ".join(sorted(names)) or "none are named"
        raise ValueError(
            f"{type(teacher).__name__} has no module of the classes to gather at a time ({said}); pass blocks=, the "
            "name of the class that its layers have."
        )
    teacher.eval().requires_grad_(False)
    modules: list[nn.Module] = [*reversed(found), teacher]  # what is inside comes first
    for module in modules:
        fully_shard(module, mesh=mesh)
    return teacher
