"""The course's clips and films, in one visual language.

`stage/` holds what every scene uses and no scene: `style` (colours, type, easing), `mobjects` and
`charts` (domain objects with named animations), `clock` (timing and captions), `render` (the
files), `audit` (checks every layout without drawing it). `scenes/` holds each chapter's own.
"""
