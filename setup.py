"""The package quartet is the folder src; all else about it stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=["quartet", *(f"quartet.{name}" for name in find_packages("src"))],
    package_dir={"quartet": "src"},
)
