"""The course's colours, defined once for site, plots, widgets and films.

Gold marks the one active thing and is always outlined in navy: it has 2.2:1 on the light ground, so
it is never text. Every other ink reaches 4.5:1 on both grounds of its theme
(`tests/test_palette.py`).
"""

PALETTE = {
    "light": {
        "ground": "#FAFAFA",  # Pearl White: the page
        "panel": "#F0F4F8",  # Soft Grey: boxes on the page
        "ink": "#2D3748",  # Charcoal: text
        "muted": "#4A5568",  # Slate: secondary text
        "accent": "#1A365D",  # Navy: links, titles, what is stored
        "active": "#C9A227",  # Gold: the one active thing
        "outline": "#1A365D",  # round everything gold
        "onactive": "#1A365D",  # text on gold
        "line": "#CBD5E0",  # Mist: hairlines, empty cells
        "wash": "#DCE6F2",  # Sky: fills behind accent text
        "good": "#276749",
        "bad": "#9B2C2C",
        "series": ["#1A365D", "#B7791F", "#2C7A7B", "#9B2C2C", "#6B46C1", "#4A5568"],
    },
    "dark": {
        "ground": "#11171E",
        "panel": "#1A222C",
        "ink": "#E2E8F0",
        "muted": "#B4C0CE",
        "accent": "#A3C6F1",
        "active": "#DDB945",
        "outline": "#F5E6B8",
        "onactive": "#11171E",
        "line": "#3C4858",
        "wash": "#233449",
        "good": "#8FD3AE",
        "bad": "#F3A6A6",
        "series": ["#A3C6F1", "#E3B65B", "#7FCFCF", "#F3A6A6", "#C4B1F2", "#B4C0CE"],
    },
}

SANS, MONO = "Inter", "JetBrains Mono"


def css_variables(theme: str) -> str:
    """The theme's colours as CSS custom properties, `--lk-ink: #2D3748; …`."""
    flat = {name: colour for name, colour in PALETTE[theme].items() if name != "series"}
    flat |= {f"series{i}": colour for i, colour in enumerate(PALETTE[theme]["series"])}
    return " ".join(f"--lk-{name}: {colour};" for name, colour in flat.items())


def rules() -> str:
    """Both themes as CSS rules for whatever page they land on.

    The site, Colab and JupyterLab each name their dark mode. `:where` has a specificity of zero, so
    a page's own colours win.
    """
    dark = 'html[data-theme="dark"], html[theme="dark"], [data-jp-theme-light="false"]'
    return (
        f":where(html) {{ {css_variables('light')} }}\n"
        f":where({dark}) {{ {css_variables('dark')} }}\n"
    )


def contrast(a: str, b: str) -> float:
    """WCAG 2.2 contrast ratio of two `#RRGGBB` colours."""
    dark, light = sorted((_luminance(a), _luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """Relative luminance of sRGB, as WCAG 2.2 defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
