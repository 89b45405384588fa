"""The mirror evaluator: a process that asks both versions what a caller asked, and compares what they say.

`__main__` is the process; `service` takes Envoy's copies and the control plane's word, `bench` works the queue,
`compare` is the comparison, `sample` keeps some of it on disk. `source` is the other side: the evidence in the
control plane. `wire` is what the two tell each other.
"""
