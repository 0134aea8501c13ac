"""A program beside the receiver that knows the SNMPv3 passwords and answers for v3: `python -m ... OPTIONS PAIR_ID`.

Questions come as frames on standard input, answers go to standard output: four bytes of length, then msgpack. It ends
when its input does. The receiver itself thus needs no cryptography, and a hostile datagram meets the decryption in a
program that holds no socket.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from futago.intake import options
from futago.intake.snmp import INFORM
from futago.intake.usm import BOOTS, EPOCH_S, WINDOW_S, Doubt, Doubtful, Message, Security, parse
from futago.intake.usm_desk import LENGTH_BYTES, Answer, Question
from futago.runtime.faults import Corrupt, OperatorFault

EXIT_OPTIONS = 2


class Answerer:
    """Decides about v3 messages whose senders want an answer. Pure but for the salt's beginning.

    Args:
        security: the users.
        engine_id: ours.
    """

    def __init__(self, security: Security, engine_id: bytes) -> None:
        self._security = security
        self._engine_id = engine_id
        self._salt = int.from_bytes(os.urandom(8), "big")
        self._reported: Counter[Doubt] = Counter()

    def answer(self, question: Question, *, now_s: int) -> Answer:
        """Return what to do with a datagram."""
        try:
            message = parse(question.data)
        except Corrupt:
            return Answer(question.number, is_foreign=True)
        try:
            return self._inform(question, message, now_s)
        except Corrupt:
            return Answer(question.number, is_foreign=True)
        except Doubtful as e:
            return Answer(question.number, reply=self._report(message, e.doubt, now_s))

    def _inform(self, question: Question, message: Message, now_s: int) -> Answer:
        if message.engine_id != self._engine_id:
            return self._of_another_engine(question, message, now_s)
        self._security.verified(message)
        is_late = message.boots != BOOTS or abs(message.time - (now_s - EPOCH_S)) > WINDOW_S
        if message.code and is_late and not question.is_recorded:
            raise Doubtful(Doubt.TIME)
        opened = self._security.open_message(message)
        if opened.tag != INFORM:
            return Answer(question.number, is_foreign=True)
        if question.is_recorded:
            return Answer(question.number, identity=opened.data)
        self._salt = (self._salt + 1) % (1 << 64)
        reply = self._security.answer(
            message, engine_id=self._engine_id, now_s=now_s, salt=self._salt.to_bytes(8, "big")
        )
        return Answer(question.number, reply, opened.data)

    def _of_another_engine(self, question: Question, message: Message, now_s: int) -> Answer:
        """Return what to do with a message that names an engine which is not ours: a sender that asks for ours, an INFORM
        for whoever it took us for, or a trap whose sender wrongly says that it wants an answer. A trap names its
        sender's engine and must be taken; so is what nobody can open, as it is without that flag.
        """
        reply = self._report(message, Doubt.ENGINE, now_s)
        if not message.engine_id:
            return Answer(question.number, reply)
        try:
            if self._security.open_message(message).tag == INFORM:
                return Answer(question.number, reply)
        except (Corrupt, Doubtful):
            return Answer(question.number, reply, is_foreign=True)
        return Answer(question.number, is_foreign=True)

    def _report(self, message: Message, doubt: Doubt, now_s: int) -> bytes:
        self._reported[doubt] += 1
        return self._security.report(message, doubt, self._reported[doubt], engine_id=self._engine_id, now_s=now_s)


def main() -> int:
    """Answer until the input ends."""
    try:
        known = options.load(Path(sys.argv[1]))
    except OperatorFault as e:
        sys.stderr.write(f"{e}\n")
        return EXIT_OPTIONS
    answerer = Answerer(Security(known.snmp.users), options.engine_id(sys.argv[2]))
    decoder, encoder = msgspec.msgpack.Decoder(Question), msgspec.msgpack.Encoder()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(length := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        question = decoder.decode(source.read(int.from_bytes(length, "big")))
        answer = encoder.encode(answerer.answer(question, now_s=int(time.time())))
        sink.write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
        sink.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
