"""Effect: the process that checks inputs for a front, which kills it when one takes too long.

jsonschema_rs holds the interpreter while it works, so that this process can watch nothing meanwhile: the
kernel kills it when the front dies. It exits at the end of its stream.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
import time
from collections import OrderedDict
from typing import Any

import msgspec

from api.validation.input_checker import InputChecker, InputRules
from api.validation.json_text import CheckedJson, check_json_text
from api.validation.messages import Begun, Checked, CheckInput, encode_frame, request_decoder
from runner.processes.child import ValidatorConfig, ignore_terminal_signals, read_config
from runner.protocol.framing import LENGTH

#: Compiled rules kept; those that were used least recently are dropped first.
RULES_MAX = 256
_PR_SET_PDEATHSIG = 1


class ValidatorProcess:
    """Server of the one stream from a front: a request is answered before the next one is read."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        #: In order of use.
        self._checkers: OrderedDict[InputRules, InputChecker] = OrderedDict()

    def run(self) -> None:
        """Serve until the stream ends."""
        with self._stream.makefile("rb") as reader:
            while len(head := reader.read(LENGTH.size)) == LENGTH.size:
                (length,) = LENGTH.unpack(head)
                request = request_decoder.decode(reader.read(length))
                self._answer(request)

    def _answer(self, request: CheckInput) -> None:
        checker = self._find_checker(request.rules)
        text = b""
        if request.depth_max is None:
            value = msgspec.json.decode(request.text)
        else:
            parsed = check_json_text(request.text, request.depth_max)
            if not isinstance(parsed, CheckedJson):
                self._send(Begun(), Checked(parsed))
                return
            value = parsed.value
            text = msgspec.json.encode(value)
        self._send(Begun())
        began_mono = time.monotonic()
        found = _check(checker, value, request.faults_max)
        found.elapsed_s = time.monotonic() - began_mono
        if not found.faults:
            found.text = text
            found.warnings = checker.unknown_fields.find(value)
        self._send(found)

    def _send(self, *replies: Begun | Checked) -> None:
        self._stream.sendall(b"".join(map(encode_frame, replies)))

    def _find_checker(self, rules: InputRules) -> InputChecker:
        checker = self._checkers.get(rules)
        if checker is None:
            checker = self._checkers[rules] = InputChecker(rules)
            if len(self._checkers) > RULES_MAX:
                self._checkers.popitem(last=False)
        self._checkers.move_to_end(rules)
        return checker


def _check(checker: InputChecker, value: Any, faults_max: int) -> Checked:
    """Return the faults of a value, or its traits."""
    validator = checker.validator
    if validator is not None and not validator.is_valid(value):
        return Checked(validator.find_faults(value, faults_max))
    traits = checker.read_traits(value)
    return Checked([traits]) if len(traits) == 2 else Checked([], traits=traits)


def main() -> None:
    """Run the process (`python -m runner validator`)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # guard: validator-dies-with-front
    ignore_terminal_signals()
    # A front that died before the kernel knew of the binding has closed its ends of both streams.
    config, _lifeline = read_config(int(sys.argv[sys.argv.index("--lifeline") + 1]), ValidatorConfig)
    try:
        ValidatorProcess(socket.socket(fileno=config.fd)).run()
    except (BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main()
