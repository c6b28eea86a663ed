"""`labkit.traces` by its short name: the Trace, and the step and recorder of each kind."""

from labkit.traces import Trace, stored
from labkit.traces.attention import AttentionStep, record_attention
from labkit.traces.blocks import BlocksStep
from labkit.traces.decode import DecodeStep, record_decode
from labkit.traces.routing import RoutingStep, record_routing
from labkit.traces.schedule import ScheduleStep
from labkit.traces.speculation import SpeculationStep
from labkit.traces.state import StateStep, record_state
from labkit.traces.window import WindowStep, record_window

__all__ = [
    "AttentionStep",
    "BlocksStep",
    "DecodeStep",
    "RoutingStep",
    "ScheduleStep",
    "SpeculationStep",
    "StateStep",
    "Trace",
    "WindowStep",
    "record_attention",
    "record_decode",
    "record_routing",
    "record_state",
    "record_window",
    "stored",
]
