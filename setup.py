# SPDX-License-Identifier: Apache-2.0
"""The package quartet is the folder src; all else about it stands in pyproject.toml."""

from setuptools import find_namespace_packages, setup

folders = find_namespace_packages("src", exclude=["*__pycache__"])
data = {"quartet.reports": ["templates/*"]}
setup(
    packages=["quartet", *(f"quartet.{name}" for name in folders)],
    package_dir={"quartet": "src"},
    package_data=data,
)
