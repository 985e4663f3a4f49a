#!/usr/bin/env python3
"""A cloud provider for quarterdeck, to begin from.

It keeps the rules of the protocol (docs/cloud/protocol.md); its cloud is `Cloud` below, which lives in memory. To make a
provider of it, put calls of your cloud's API in the place of that class, and your names in the place of "template".

    provider.py --socket /run/quarterdeck/template.sock --state /var/lib/template.json --instance node-1=10.0.0.1
    quarterdeck --cloud-provider=template=grpc:unix:///run/quarterdeck/template.sock

It needs grpcio, grpcio-status, grpcio-health-checking, and the protocol's Python code, made with grpcio-tools:

    python -m grpc_tools.protoc -I src/cloud/proto --python_out=. --grpc_python_out=. \
        quarterdeck/cloudprovider/v1/cloudprovider.proto
"""

import argparse
import hashlib
import ipaddress
import json
import os
import signal
import tempfile
import threading
import uuid
from concurrent import futures
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from quarterdeck.cloudprovider.v1 import cloudprovider_pb2 as pb
from quarterdeck.cloudprovider.v1 import cloudprovider_pb2_grpc as rpc

NAME = "template"
MESSAGE_LIMIT = 4 * 1024 * 1024


class Failure(Exception):
    """An error of the protocol. `reason` is a word of ErrorReason."""

    CODES = {
        "NOT_FOUND": grpc.StatusCode.NOT_FOUND,
        "NOT_IMPLEMENTED": grpc.StatusCode.UNIMPLEMENTED,
        "IMPLEMENTED_ELSEWHERE": grpc.StatusCode.FAILED_PRECONDITION,
        "RETRY_AFTER": grpc.StatusCode.UNAVAILABLE,
        "THROTTLED": grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TIMEOUT": grpc.StatusCode.DEADLINE_EXCEEDED,
        "CONFLICT": grpc.StatusCode.ABORTED,
        "IMMUTABLE": grpc.StatusCode.FAILED_PRECONDITION,
        "QUOTA": grpc.StatusCode.RESOURCE_EXHAUSTED,
        "DENIED": grpc.StatusCode.PERMISSION_DENIED,
        "INVALID": grpc.StatusCode.INVALID_ARGUMENT,
        "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
        "SUPERSEDED": grpc.StatusCode.FAILED_PRECONDITION,
        "OTHER": grpc.StatusCode.UNKNOWN,
    }

    def __init__(self, reason, message, retry_seconds=None):
        super().__init__(message)
        self.reason, self.message, self.retry_seconds = reason, message[:1000], retry_seconds

    def status(self):
        details = [error_details_pb2.ErrorInfo(reason=self.reason, domain="quarterdeck.dev")]
        if self.retry_seconds is not None:
            delay = duration_pb2.Duration(seconds=self.retry_seconds)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        code = self.CODES[self.reason]
        return rpc_status.to_status(
            status_pb2.Status(code=code.value[0], message=self.message, details=packed)
        )


@dataclass
class Cloud:
    """The cloud: here a few dictionaries. Everything that a real provider does over the network is in this class.

    What belongs to a cluster carries its id; load balancers carry the Service's uid besides. A real cloud keeps both as
    tags, and is searched by them: a provider remembers nothing that it could not find again after a restart.
    """

    account: str = "account-1"
    # providerID -> (name, address)
    instances: dict = field(default_factory=dict)
    # (cluster_id, uid) -> load balancer
    balancers: dict = field(default_factory=dict)
    # (cluster_id, destination) -> route
    routes: dict = field(default_factory=dict)
    # Addresses that load balancers may have.
    free: list = field(default_factory=lambda: [f"198.51.100.{last}" for last in range(10, 250)])
    # What lists give at once. Small answers are easy on everybody.
    page: int = 500


@dataclass
class Balancer:
    handle: str
    address: str
    # What it is configured as.
    spec: pb.LoadBalancerSpec

    def fingerprint(self):
        """Changes with every change, whoever made it. A real one is computed from what the cloud says."""
        return hashlib.sha256(self.spec.SerializeToString(deterministic=True)).hexdigest()[:16]


class Epochs:
    """The latest lease_epoch of each cluster, which grows from leader to leader: calls of an earlier one are refused, also
    after a restart. Best kept in the cloud; a file is enough where one process at a time serves."""

    def __init__(self, path):
        self.path, self.latest = path, {}
        if path and os.path.exists(path):
            # A file that cannot be read is no reason to forget: let it end here.
            with open(path, encoding="utf-8") as file:
                self.latest = {str(cluster): int(epoch) for cluster, epoch in json.load(file).items()}
        elif path:
            self.keep({})

    def admit(self, cluster, epoch):
        latest = self.latest.get(cluster, 0)
        if epoch < latest:
            raise Failure("SUPERSEDED", f"tenure {latest} has been seen, and this call is of {epoch}")
        if epoch > latest:
            after = {**self.latest, cluster: epoch}
            try:
                self.keep(after)
            except OSError as error:
                raise Failure("UNAVAILABLE", f"the tenure cannot be remembered: {error}") from error
            self.latest = after

    def keep(self, latest):
        """All of it or nothing: into another file, which then takes the name."""
        if not self.path:
            return
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(self.path) or ".", delete=False) as part:
            json.dump(latest, part)
            part.flush()
            os.fsync(part.fileno())
        os.replace(part.name, self.path)


class Base:
    """What is the same for every call: one at a time, old tenures refused, errors in the protocol's form."""

    def __init__(self, cloud, epochs):
        self.cloud = cloud
        self.lock = threading.Lock()
        self.epochs = epochs

    def change(self, meta):
        """Called first by what changes something."""
        self.epochs.admit(meta.cluster_id, meta.lease_epoch)


def answers(method):
    """Has a method of a service answer with an error of the protocol where it raises one."""

    def answer(service, request, context):
        base = service.base
        with base.lock:
            # Whoever asked has gone, or the time is over: doing it now would surprise.
            if not context.is_active():
                context.abort(grpc.StatusCode.CANCELLED, "the caller left")
            try:
                if not request.meta.cluster_id:
                    raise Failure("INVALID", "meta.cluster_id: is empty")
                return method(service, base.cloud, request)
            except Failure as failure:
                context.abort_with_status(failure.status())

    return answer


class Service:
    def __init__(self, base):
        self.base = base


class Identity(Service, rpc.IdentityServicer):
    @answers
    def GetInfo(self, cloud, request):
        return pb.GetInfoResponse(
            name=NAME, schemes=[NAME], max_batch=500, instances=True, load_balancers=True, routes=True
        )

    @answers
    def Probe(self, cloud, request):
        # A real one makes the cheapest call there is that needs the credentials.
        return pb.ProbeResponse()


class Instances(Service, rpc.InstancesServicer):
    @answers
    def BatchGet(self, cloud, request):
        answer = pb.BatchGetResponse(account=cloud.account)
        for node in request.nodes:
            answer.nodes.append(self.look_for(cloud, node))
        return answer

    def look_for(self, cloud, node):
        if node.provider_id and not node.provider_id.startswith(f"{NAME}://"):
            return pb.NodeAnswer(node=node, not_mine=pb.NotMine())
        for provider_id, (name, address) in cloud.instances.items():
            if provider_id == node.provider_id or (not node.provider_id and name == node.name):
                found = pb.Instance(provider_id=provider_id, zone="zone-1", region="region-1", instance_type="small")
                found.addresses.add(kind=pb.ADDRESS_KIND_HOSTNAME, address=name)
                found.addresses.add(kind=pb.ADDRESS_KIND_INTERNAL_IP, address=address)
                return pb.NodeAnswer(node=node, found=found)
        # Only because the whole account was searched, and the cloud said so. If a call to the cloud fails, raise:
        # never answer this.
        evidence = f"{len(cloud.instances)} instances in {cloud.account}, none is it"
        return pb.NodeAnswer(node=node, absent=pb.Absent(evidence=evidence))


class LoadBalancers(Service, rpc.LoadBalancersServicer):
    def owned(self, balancer):
        return pb.OwnedLoadBalancer(
            owner=balancer.spec.owner, handle=balancer.handle, fingerprint=balancer.fingerprint()
        )

    def ready(self, balancer):
        ready = pb.Ready(handle=balancer.handle, fingerprint=balancer.fingerprint())
        ready.ingress.add(ip=balancer.address)
        return pb.LoadBalancerOutcome(ready=ready)

    def find(self, cloud, owner):
        if not owner.cluster_id or not owner.uid:
            raise Failure("INVALID", "owner: cluster_id and uid are needed")
        return cloud.balancers.get((owner.cluster_id, owner.uid))

    @answers
    def Get(self, cloud, request):
        found = self.find(cloud, request.owner)
        return pb.GetLoadBalancersResponse(load_balancers=[self.owned(found)] if found else [])

    @answers
    def Ensure(self, cloud, request):
        self.base.change(request.meta)
        spec = request.spec
        balancer = self.find(cloud, spec.owner)
        if balancer is None:
            if not cloud.free:
                raise Failure("QUOTA", "no address is left")
            # Tagged with its owner from its first moment, so that a call that is cut off here leaves nothing unowned.
            balancer = Balancer(f"lb-{uuid.uuid4().hex[:8]}", cloud.free.pop(0), spec)
            cloud.balancers[(spec.owner.cluster_id, spec.owner.uid)] = balancer
        balancer.spec = spec
        return pb.EnsureLoadBalancerResponse(outcome=self.ready(balancer))

    @answers
    def UpdateBackends(self, cloud, request):
        self.base.change(request.meta)
        balancer = self.find(cloud, request.spec.owner)
        # The owner counts: a handle of another one is not to be followed.
        if balancer is None or balancer.handle != request.known_handle:
            raise Failure("NOT_FOUND", f"no load balancer {request.known_handle} of {request.spec.owner.uid}")
        # The backends and nothing else, whatever else the request says.
        changed = pb.LoadBalancerSpec()
        changed.CopyFrom(balancer.spec)
        del changed.backends[:]
        changed.backends.extend(request.spec.backends)
        balancer.spec = changed
        return pb.UpdateBackendsResponse(outcome=self.ready(balancer))

    @answers
    def EnsureDeleted(self, cloud, request):
        self.base.change(request.meta)
        balancer = self.find(cloud, request.owner)
        if balancer is not None:
            del cloud.balancers[(request.owner.cluster_id, request.owner.uid)]
            cloud.free.append(balancer.address)
        return pb.EnsureLoadBalancerDeletedResponse(gone=pb.Gone())

    @answers
    def ListOwned(self, cloud, request):
        keys = sorted(uid for cluster, uid in cloud.balancers if cluster == request.meta.cluster_id)
        keys = [uid for uid in keys if uid > request.page_token]
        page = [cloud.balancers[(request.meta.cluster_id, uid)] for uid in keys[: cloud.page]]
        return pb.ListOwnedResponse(
            load_balancers=[self.owned(one) for one in page],
            next_page_token=keys[cloud.page - 1] if len(keys) > cloud.page else "",
        )


class Routes(Service, rpc.RoutesServicer):
    def key(self, request, route):
        try:
            return request.meta.cluster_id, str(ipaddress.ip_network(route.destination))
        except ValueError as error:
            raise Failure("INVALID", f"destination: {error}") from error

    @answers
    def List(self, cloud, request):
        keys = sorted(to for cluster, to in cloud.routes if cluster == request.meta.cluster_id)
        keys = [to for to in keys if to > request.page_token]
        return pb.ListRoutesResponse(
            routes=[cloud.routes[(request.meta.cluster_id, to)] for to in keys[: cloud.page]],
            next_page_token=keys[cloud.page - 1] if len(keys) > cloud.page else "",
        )

    @answers
    def Create(self, cloud, request):
        self.base.change(request.meta)
        key = self.key(request, request.route)
        there = cloud.routes.setdefault(key, request.route)
        if there.node != request.route.node:
            raise Failure("CONFLICT", f"{request.route.destination} leads to {there.node}")
        return pb.CreateRouteResponse()

    @answers
    def Replace(self, cloud, request):
        # A cloud that cannot do this in one step leaves the method out.
        self.base.change(request.meta)
        cloud.routes[self.key(request, request.new)] = request.new
        return pb.ReplaceRouteResponse()

    @answers
    def Delete(self, cloud, request):
        self.base.change(request.meta)
        cloud.routes.pop(self.key(request, request.route), None)
        return pb.DeleteRouteResponse()


def main():
    parser = argparse.ArgumentParser(description="A cloud in memory, as a plug-in of quarterdeck.")
    parser.add_argument("--socket", required=True, help="unix socket to serve on")
    parser.add_argument("--instance", action="append", default=[], metavar="NAME=ADDRESS", help="an instance it has")
    parser.add_argument("--state", help="file in which it remembers the latest tenure of each cluster")
    parser.add_argument("--page", type=int, default=500, help="how much a list gives at once")
    flags = parser.parse_args()

    cloud = Cloud(page=flags.page)
    for instance in flags.instance:
        name, address = instance.split("=", 1)
        cloud.instances[f"{NAME}://{name}"] = (name, address)

    base = Base(cloud, Epochs(flags.state))
    limits = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=limits)
    rpc.add_IdentityServicer_to_server(Identity(base), server)
    rpc.add_InstancesServicer_to_server(Instances(base), server)
    rpc.add_LoadBalancersServicer_to_server(LoadBalancers(base), server)
    rpc.add_RoutesServicer_to_server(Routes(base), server)
    healthy = health.HealthServicer()
    healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_insecure_port(f"unix://{flags.socket}")
    server.start()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: server.stop(grace=5))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
