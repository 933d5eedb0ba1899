from pathlib import Path


def checkpoint_path(size: str, output_dir: Path = Path("checkpoints")) -> Path:
    return output_dir / f"sam2.1_hiera_{size}.pt"
