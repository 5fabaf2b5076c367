# SPDX-License-Identifier: Apache-2.0
"""What every part needs: errors of one line, files that are whole or absent, the command line, the log."""
