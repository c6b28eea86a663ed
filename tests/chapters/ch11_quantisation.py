"""What the tests of every chapter need to know about chapter 11."""

from tests.cases import LabCase, stored

LABS = {
    "formats": LabCase(
        real=True,
        doctored=[
            ({}, {"normal_decibels": 99.0}, "count its bits again"),
        ],
    ),
    "awq": LabCase(
        real=True,
        rows=stored("ch11/awq"),
        doctored=[
            ({"chosen": True}, {"fitted": 9.0}, "how it is chosen"),
        ],
    ),
    "gptq": LabCase(
        real=True,
        rows=stored("ch11/gptq"),
        doctored=[
            ({"method": "GPTQ"}, {"fitted": 9.0}, "the order of the updates"),
        ],
    ),
    "outliers": LabCase(
        real=True,
        rows=stored("ch11/outliers"),
        doctored=[
            ({"layer": 11}, {"per_row": 2.0}, "which axis is scaled"),
        ],
    ),
    "int8": LabCase(
        real=True,
        doctored=[
            ({"variant": "int8 weights"}, {"bytes": 10**9}, "left as they were"),
            ({"variant": "bf16"}, {"change_course": float("nan")}, "infinite logits"),
        ],
    ),
}
