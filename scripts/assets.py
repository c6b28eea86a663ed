"""What is copied at set-up and not committed: web fonts cut out of the system's, and MathJax from
PyPI, which renders the book's maths when it is built.

    python scripts/assets.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from fontTools import subset

from root import ROOT

MATHJAX = "django-static-mathjax==3.2.2.1"
MATHJAX_SHA = "05ad109fd9e5d9d380c76389689b7f523e9ccb7f7a85c1eb962c7564eac7601d"
MATHJAX_FOLDER = "mathjax/static/mathjax"
SYSTEM_FONTS = ("/usr/share/fonts", "/usr/share/texmf/fonts")
FACES = {  # file of ours -> the system's
    "inter-400": "Inter-Regular.otf",
    "inter-400i": "Inter-Italic.otf",
    "inter-600": "Inter-SemiBold.otf",
    "mono-400": "JetBrainsMono-Regular.ttf",
    "math-400": "latinmodern-math.otf",
}
# Latin, and the arrows, signs and Greek letters that the course's prose and code use.
CHARACTERS = [chr(c) for c in (*range(0x20, 0x7F), *range(0xA0, 0x100))] + list(
    "ıŁłŒœŠšŽžŞşĞğĆćČčÉéățș"
    "–—‘’‚“”„†‡•…‰′″‹›⁄€™−×÷±≈≠≤≥≡≪≫∞√∑∏∂∇∈∝·→←↑↓↔⇒⇐↦⌈⌉⌊⌋"
    "αβγδεζηθκλμνξπρστφχψωΓΔΘΛΣΦΨΩ⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉½⅓¼¾✓✗●○■□▲▼▶◀▸▾│─└├┐┘█░"
)
# Of formulas: upright, italic and bold letters, Greek, sets, operators, and what grows.
MATHS = [chr(c) for c in (*range(0x20, 0x7F), *range(0x1D400, 0x1D468), *range(0x1D6FC, 0x1D71B))]
MATHS += list(
    "αβγδεζηθκλμνξπρστφχψωΓΔΘΛΣΦΨΩℎℓℒℕℝℤ𝔼ı"
    "∑∏∫√∂∇∞∈∉∀∃≤≥≠≈≡∼≪≫∝→←↦⇒⇔⌊⌋⌈⌉⟨⟩∣∥…⋯⋮⋱·×⋅÷±∓⊙⊗⊕∘∗⊤′−¯ˆ˜ˉ⏞⏟\u2061\u2062\u2063"
)


def mathjax(target: Path) -> None:
    """`tex-chtml.js` out of the wheel, which is checked and never installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            MATHJAX,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            sys.exit(
                f"MathJax could not be fetched: `pip download {MATHJAX}` failed. Is there a"
                f" network? {done.stderr.strip()[-200:]}"
            )
        found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if found != MATHJAX_SHA:
            sys.exit(
                f"{wheels[0].name} is not the file expected (sha256 {found[:12]}…, expected"
                f" {MATHJAX_SHA[:12]}…): nothing was copied"
            )
        with zipfile.ZipFile(wheels[0]) as z:
            target.mkdir(parents=True, exist_ok=True)
            for name in (f"{MATHJAX_FOLDER}/es5/tex-chtml.js", f"{MATHJAX_FOLDER}/LICENSE"):
                (target / Path(name).name).write_bytes(z.read(name))


def fonts(target: Path) -> None:
    """Each face as WOFF2 with the characters above and the features that text needs."""
    target.mkdir(parents=True, exist_ok=True)
    installed = {p.name: p for top in SYSTEM_FONTS for p in Path(top).rglob("*.[ot]tf")}
    missing = [name for name in FACES.values() if name not in installed]
    if missing:
        sys.exit(
            f"these fonts are not installed: {', '.join(missing)}. Install the packages"
            " fonts-inter, fonts-jetbrains-mono and fonts-lmodern"
        )
    features = ["kern", "liga", "mark", "mkmk", "ccmp", "locl", "tnum"]
    options = subset.Options(
        flavor="woff2",
        hinting=False,
        desubroutinize=True,
        layout_features=features,
        name_IDs=[0, 1, 2, 13, 14],
    )
    for name, source in FACES.items():
        font = subset.load_font(str(installed[source]), options)
        cutter = subset.Subsetter(options)
        cutter.populate(text="".join(MATHS if name.startswith("math") else CHARACTERS))
        cutter.subset(font)
        subset.save_font(font, str(target / f"{name}.woff2"), options)


if __name__ == "__main__":
    mathjax(ROOT / ".venv/share/mathjax")
    fonts(ROOT / "book/_static/vendor/fonts")
