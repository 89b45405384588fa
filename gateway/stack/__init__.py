"""The embedded stack: Envoy and Triton as supervised processes beside the control plane.

Both are started detached, so that a control plane that dies leaves them serving; the next one on the same data
directory adopts them. A clean stop ends them.
"""
