"""The judge: is the canary worse than stable, is it proven not to be, or is it too early to say?

Pure statistics over counts per second (numpy only). The controller feeds ticks and acts on verdicts; evidence sources
make the ticks; neither is known here.
"""

from rollout.judge.dispersion import Calibration
from rollout.judge.judge import Judge
from rollout.judge.margins import Margin, Margins, StepMargins
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.state import JudgeState
from rollout.judge.verdict import Decision, MetricReport, Verdict

__all__ = [
    "Calibration",
    "Decision",
    "Judge",
    "JudgeSettings",
    "JudgeState",
    "Margin",
    "Margins",
    "Metric",
    "MetricReport",
    "StepMargins",
    "Verdict",
]
