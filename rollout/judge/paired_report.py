"""Paired evidence in words and as reports, for the judge of split traffic and for the judge of a shadow step."""

from __future__ import annotations

import math

from rollout.judge.paired import METRICS, SAFE_ERRORS, SAFE_WRONG, Paired
from rollout.judge.settings import JudgeSettings, Metric
from rollout.judge.verdict import MetricReport, evidence_words, percent_words, share_words

_SEEN = {
    Metric.PAIRED_ERRORS: ("candidate_only_bad", "stable_only_bad", "pairs failed on the {who} alone"),
    Metric.PAIRED_ACCURACY: (
        "candidate_only_wrong",
        "stable_only_wrong",
        "labelled pairs were wrong on the {who} alone",
    ),
    Metric.PAIRED_LATENCY: ("candidate_slower", "stable_slower", "pairs were slower on the {who}"),
    Metric.AGREEMENT: ("disagreed", "", "answered pairs differ"),
}
_MARGINS = {Metric.PAIRED_ERRORS: SAFE_ERRORS, Metric.PAIRED_ACCURACY: SAFE_WRONG}


def log_needed(settings: JudgeSettings) -> float:
    """Evidence of harm that decides: alpha, divided among the paired tests."""
    return -math.log(settings.alpha / len(METRICS))


def reports(paired: Paired, settings: JudgeSettings) -> tuple[MetricReport, ...]:
    """One per paired metric that has data."""
    found = []
    for index, metric in enumerate(METRICS):
        total = _total(paired, metric)
        if total:
            found.append(_report(paired, settings, index, total))
    return tuple(found)


def _total(paired: Paired, metric: Metric) -> float:
    match metric:
        case Metric.PAIRED_ACCURACY:
            return float(paired.total("labelled")[0])
        case Metric.AGREEMENT:
            return float((paired.total("agreed") + paired.total("disagreed"))[0])
        case _:
            return float(paired.compared[0])


def _report(paired: Paired, settings: JudgeSettings, index: int, total: float) -> MetricReport:
    metric = METRICS[index]
    worse_name, better_name, words = _SEEN[metric]
    worse = float(paired.total(worse_name)[0])
    better = float(paired.total(better_name)[0]) if better_name else 0.0
    log_harm, log_safe = float(paired.log_harm()[index, 0]), float(paired.log_safe()[index, 0])
    safe_needed = -math.log(settings.beta)
    margin = settings.max_disagreement if metric is Metric.AGREEMENT else _MARGINS.get(metric)
    seen = f"{share_words(worse, total)} {words.format(who='candidate')}"
    if better_name:
        seen += f", {share_words(better, total)} on stable alone"
    elif margin is not None:
        seen += f", of at most {percent_words(margin)}"
    shown = margin is None or log_safe >= safe_needed
    return MetricReport(
        metric=metric,
        canary_bad=worse,
        canary_total=total,
        stable_bad=better,
        stable_total=total if better_name else 0.0,
        harm_log_e=log_harm,
        harm_log_needed=log_needed(settings),
        suspicion_log_e=log_harm,
        safe_log_e=min(log_safe, safe_needed) if math.isinf(log_safe) else log_safe,
        safe_log_needed=safe_needed,
        margin=margin,
        phi=1.0,
        missing_requests=0 if shown else None,
        harm_words=f"{metric.value}: {seen}; {evidence_words(log_harm, log_needed(settings))}",
        safe_words="" if shown else f"{metric.value}: {_claim(metric, margin or 0.0)} is not shown yet ({seen})",
    )


def _claim(metric: Metric, margin: float) -> str:
    match metric:
        case Metric.PAIRED_ERRORS:
            return f"less than {percent_words(margin)} of pairs failing on the candidate alone"
        case Metric.PAIRED_ACCURACY:
            return f"less than {percent_words(margin)} of answers wrong beyond stable's"
        case _:
            return f"less than {percent_words(margin)} of answers differing"
