"""The course's labs, installed as `labkit_labs`: thin scripts over labkit, their stored results,
and small data.
"""
