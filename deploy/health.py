"""Ask a server's gRPC health service: ``python health.py HOST:PORT``; exits with 0 where it is SERVING."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# No proxy: Docker may name one in every container's environment.
with grpc.insecure_channel(sys.argv[1], [("grpc.enable_http_proxy", 0)]) as channel:
    reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
sys.exit(reply.status != health_pb2.HealthCheckResponse.SERVING)
