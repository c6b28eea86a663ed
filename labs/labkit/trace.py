"""`labkit.traces` by its short name: the Trace, and the step and recorder of each kind it began
with.
"""

from labkit.traces import Trace, stored
from labkit.traces.attention import AttentionStep, record_attention
from labkit.traces.blocks import BlocksStep
from labkit.traces.decode import DecodeStep, record_decode
from labkit.traces.schedule import ScheduleStep
from labkit.traces.speculation import SpeculationStep

__all__ = [
    "AttentionStep",
    "BlocksStep",
    "DecodeStep",
    "ScheduleStep",
    "SpeculationStep",
    "Trace",
    "record_attention",
    "record_decode",
    "stored",
]
