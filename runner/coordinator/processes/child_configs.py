"""Effect: the configs of child processes, built from the settings and the environment of this process."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from gpu.devices import visibility
from gpu.devices.device import Device
from runner.coordinator.storage.ticket_secret import ticket_key
from runner.processes.child import FrontConfig, ProbeConfig, WorkerConfig
from runner.settings.settings import Settings

#: Variables of the server itself. They hold tokens and addresses of stores, so handlers never get them.
OWN_PREFIXES = ("RUNNER_", "JOB_RUNNER_")


class ChildConfigs:
    """Builder of the config structs.

    Fronts start before the store is open, workers and the probe after it: the epoch is set in between.
    """

    def __init__(self, settings: Settings, *, data_dir: Path, port: int, version: str) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._port = port
        self._version = version
        #: The epoch of this coordinator; 0 until the store has given it one.
        self.epoch = 0
        #: The secret of the data folder (see `ticket_secret`), from which the key of tickets is derived.
        self.secret = b""

    def executor_env(self) -> dict[str, str]:
        """Return the complete environment of user code, without a device mask.

        This is the environment of the server without its own variables and those that
        `[executors] env_deny` names, and with those that `[executors] env` adds.
        """
        settings = self._settings.executors
        allowed = {name: value for name, value in os.environ.items() if not self._is_denied(name)}
        return allowed | settings.env

    def _is_denied(self, name: str) -> bool:
        if name.startswith(OWN_PREFIXES):
            return True
        deny = self._settings.executors.env_deny
        return any(name == entry or (entry.endswith("*") and name.startswith(entry[:-1])) for entry in deny)

    def worker_config(self, name: str, device: Device, endpoint: str, token: str) -> WorkerConfig:
        """Return the config of a device's worker.

        `name` is unique among all workers of all starts. The worker connects to the socket `endpoint` and
        presents `token` there.
        """
        limits = self._settings.limits
        return WorkerConfig(
            endpoint=endpoint,
            token=token,
            node=socket.gethostname(),
            name=name,
            epoch=self.epoch,
            device=device.id,
            device_kind=device.kind,
            lock_path=str(self._data_dir / "locks" / f"{device.uuid}.lock"),
            spool_dir=str(self._data_dir / "spool"),
            files_dir=str(self._data_dir / "files"),
            tmp_dir=str(self._data_dir / "tmp"),
            executor_env=self.executor_env(),
            output_max_bytes=limits.output_bytes,
            log_max_bytes=limits.log_bytes,
            events_max=limits.events,
            log_format=self._settings.log_format,
            log_level=self._settings.log_level,
            template=self._settings.executors.template,
            template_env=visibility.visibility_environment([device]),
        )

    def probe_config(self, name: str, endpoint: str, token: str) -> ProbeConfig:
        """Return the config of this node's probe; the arguments are as for `worker_config`."""
        return ProbeConfig(
            endpoint=endpoint,
            token=token,
            node=socket.gethostname(),
            name=name,
            epoch=self.epoch,
            gpus=self._settings.gpus,
            max_executors=self._settings.devices.max_executors,
            headroom_bytes=self._settings.devices.headroom,
            max_resident=self._settings.devices.max_resident,
            log_format=self._settings.log_format,
            log_level=self._settings.log_level,
        )

    def front_config(self, listen_fds: list[int], control_fd: int) -> FrontConfig:
        """Return the config of a front.

        The front inherits all descriptors: of the sockets on which all fronts listen, and of its stream to
        the coordinator. It gets the hash of the token and never the token, as it parses what clients send.
        """
        settings = self._settings
        token = settings.token.get_secret_value() if settings.token is not None else ""
        token_sha256 = hashlib.sha256(token.encode()).digest() if token else b""
        return FrontConfig(
            listen_fds=listen_fds,
            control_fd=control_fd,
            host=settings.host,
            port=self._port,
            allow_hosts=settings.allow_hosts,
            allow_origins=settings.allow_origins,
            token_sha256=token_sha256,
            ticket_key=ticket_key(self.secret, token_sha256),
            body_max_bytes=settings.limits.body_bytes,
            bulk_max_bytes=settings.limits.bulk_bytes,
            depth_max=settings.limits.depth,
            version=self._version,
            log_format=settings.log_format,
            log_level=settings.log_level,
        )
