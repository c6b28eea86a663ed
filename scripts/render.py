"""Render the chapters' clips at 480p into book/_static/clips, two at a time; a clip whose sources
have not changed stays.

    python scripts/render.py
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "book/_static/clips"
QUALITY = "480p"
KINDS = ("mp4", "vtt", "webp")

sys.path.insert(0, str(ROOT))


def key(scene) -> str:
    """What the clip is made from, as one hash."""
    from animations.stage.render import sources

    return hashlib.sha256(
        QUALITY.encode() + b"".join(p.read_bytes() for p in sorted(sources(scene)))
    ).hexdigest()


def current(scene) -> bool:
    stamp = OUT / f"{scene.clip_name}.key"
    return (
        stamp.exists()
        and stamp.read_text() == key(scene)
        and all((OUT / f"{scene.clip_name}.{kind}").exists() for kind in KINDS)
    )


def draw(name: str) -> str:
    """Render one clip, in a process of its own. Returns a line to print."""
    from animations.scenes import clips
    from animations.stage.render import render

    scene = next(s for s in clips() if s.clip_name == name)
    made = render(scene, QUALITY, OUT)
    (OUT / f"{name}.key").write_text(key(scene))
    return f"{name}: {made.seconds:.0f} s, {made.mp4.stat().st_size / 1e6:.2f} MB"


def main() -> None:
    from animations.scenes import clips

    OUT.mkdir(parents=True, exist_ok=True)
    scenes = clips()
    for path in OUT.iterdir():
        if path.stem not in {s.clip_name for s in scenes}:
            path.unlink()
    todo = [s.clip_name for s in scenes if not current(s)]
    if todo:
        with ProcessPoolExecutor(max_workers=2) as pool:
            for line in pool.map(draw, todo):
                print(f"clip: {line}", flush=True)


if __name__ == "__main__":
    main()
