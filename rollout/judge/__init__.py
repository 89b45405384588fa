"""The judge: is the canary worse than stable, is it proven not to be, or is it too early to say?

Pure statistics over counts per second (numpy only). The controller feeds ticks and acts on verdicts; evidence sources
make the ticks; neither is known here.
"""

from rollout.judge.dispersion import Calibration
from rollout.judge.flow import Flow, Standing
from rollout.judge.forecast import Forecast, MetricForecast, forecast
from rollout.judge.judge import Judge
from rollout.judge.margins import Margin, Margins, Stage, StepMargins
from rollout.judge.paired_forecast import forecast_pairs
from rollout.judge.paired_judge import PairedJudge
from rollout.judge.settings import DriftAction, JudgeSettings, Metric
from rollout.judge.state import JudgeState
from rollout.judge.verdict import Decision, MetricReport, Verdict

__all__ = [
    "Calibration",
    "Decision",
    "DriftAction",
    "Flow",
    "Forecast",
    "Judge",
    "JudgeSettings",
    "JudgeState",
    "Margin",
    "Margins",
    "Metric",
    "MetricForecast",
    "MetricReport",
    "PairedJudge",
    "Stage",
    "Standing",
    "StepMargins",
    "Verdict",
    "forecast",
    "forecast_pairs",
]
