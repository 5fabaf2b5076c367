# SPDX-License-Identifier: Apache-2.0
"""What this machine has and what will work here: what `python -m src.tools.doctor` says.

It has to start where packages are missing: only `probe` and, in a function, `data` import what is not
Python's own.
"""
