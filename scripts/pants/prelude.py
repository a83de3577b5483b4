def python_package(module, **dist_kwargs):
    """The targets of one pip-installable package, whose metadata are in its pyproject.toml only."""
    python_sources(
        name="lib",
        sources=[f"{module}/**/*.py", f"{module}/**/*.pyi"],
        dependencies=[":data"],
    )
    resources(
        name="data",
        sources=[
            f"{module}/**/*",
            f"!{module}/**/*.py",
            f"!{module}/**/*.pyi",
            f"!{module}/**/__pycache__/**",
        ],
    )
    # mypy reads all files at once, and every package has its own tests/conftest.py.
    python_test_utils(
        name="test-utils",
        sources=["tests/**/conftest.py", "tests/**/util*.py"],
        skip_mypy=True,
    )
    python_tests(
        name="tests",
        sources=["tests/**/test_*.py"],
        batch_compatibility_tag=module,  # the test files of a package share a process
        skip_mypy=True,
    )
    python_sources(name="scripts", sources=["benchmarks/**/*.py", "examples/**/*.py"])
    files(name="build-files", sources=["pyproject.toml", "README.md"])
    python_distribution(
        name="dist",
        dependencies=[":lib", ":build-files"],
        provides=python_artifact(),
        generate_setup=False,
        sdist=False,
        **dist_kwargs,
    )
