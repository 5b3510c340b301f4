"""
Proofs over every input of a neuron, with an independent judge; ``mpsref prove`` on the command line.

The judge needs python-flint: ``pip install 'mpsref[proof]'``.
"""

from mpsref.proof.certificate import Subject, committed_certificates, passed, report
from mpsref.proof.run import prove
from mpsref.proof.sweep import require_judge

__all__ = ["Subject", "committed_certificates", "passed", "prove", "report", "require_judge"]
