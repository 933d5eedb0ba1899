"""The Python backend's regions in /dev/shm: is there room, which are ours, remove what is left."""

from pathlib import Path
from shutil import disk_usage

from sam2_server.errors import SharedMemoryError

SHARED_MEMORY_DIR = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives on Linux


def region_prefix(launcher_pid: int, started_at: float) -> str:
    """A name prefix that no other server on this machine uses, now or later."""
    return f"sam2_{launcher_pid}_{int(started_at * 1000):x}_"


def regions(prefix: str) -> list[Path]:
    if not prefix.startswith("sam2_"):
        raise ValueError(f"expected a prefix made by region_prefix, got {prefix!r}")
    return sorted(SHARED_MEMORY_DIR.glob(f"{prefix}*"))


def remove_regions(prefix: str) -> int:
    """Remove what a killed server left behind; says how many regions that were."""
    left = regions(prefix)
    for region in left:
        region.unlink(missing_ok=True)
    return len(left)


def check_room(instances: int, region_mb: int) -> None:
    """Raise where the first regions of all Python instances cannot be created."""
    free_mb = disk_usage(SHARED_MEMORY_DIR).free >> 20
    needed_mb = instances * region_mb
    if free_mb < needed_mb:
        raise SharedMemoryError(
            f"{SHARED_MEMORY_DIR} has {free_mb} MB free, but {instances} model instances x {region_mb} MB "
            f"(--shm-mb) need {needed_mb} MB.",
            "Enlarge it (containers: --shm-size or shm_size, the default there is 64 MB), "
            "or give a smaller --shm-mb.",
        )
