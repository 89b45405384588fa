"""`python -m loadtest`: what `penstock load` runs. Importing Locust makes sockets yield to greenlets; so does gRPC."""

import sys

import grpc.experimental.gevent as grpc_gevent
import locust  # noqa: F401  # before everything that opens a socket: it patches the standard library

from loadtest.main import main

grpc_gevent.init_gevent()
sys.exit(main())
