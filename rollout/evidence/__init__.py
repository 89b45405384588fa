"""Where the judge's evidence comes from: sources of ticks, each behind `rollout.ports.Evidence`."""
