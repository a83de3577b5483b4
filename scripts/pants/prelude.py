def python_package(
    module, lib_dependencies=(), test_dependencies=(), apart=(), **dist_kwargs
):
    """The targets of one pip-installable package, whose metadata are in its pyproject.toml only.

    `lib_dependencies` and `test_dependencies`: what its modules and tests need beside what they import.
    `apart`: folders of `tests` whose files run in a process of their own, each beside the others.
    """
    python_sources(
        name="lib",
        sources=[f"{module}/**/*.py", f"{module}/**/*.pyi"],
        dependencies=[":data", *lib_dependencies],
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
        sources=["tests/**/*.py", "!tests/**/test_*.py"],
        skip_mypy=True,
    )
    files(
        name="test-data",
        sources=[
            *[f"tests/**/*.{ending}" for ending in ("json", "npz", "tar.gz", "txt")],
            "tests/fixtures/**/*",
        ],
    )
    python_tests(
        name="tests",
        sources=["tests/**/test_*.py", *[f"!tests/{folder}/**" for folder in apart]],
        dependencies=[":test-data", *test_dependencies],
        batch_compatibility_tag=module,  # the test files of a package share a process
        skip_mypy=True,
    )
    for folder in apart:
        python_tests(
            name=f"tests-{folder}",
            sources=[f"tests/{folder}/**/test_*.py"],
            dependencies=[":test-data", *test_dependencies],
            batch_compatibility_tag=f"{module}, {folder}",
            skip_mypy=True,
        )
    python_sources(
        name="scripts",
        sources=["benchmarks/**/*.py", "examples/**/*.py"],
        skip_mypy=True,
    )
    files(name="build-files", sources=["pyproject.toml", "README.md"])
    python_distribution(
        name="dist",
        dependencies=[":lib", ":build-files"],
        provides=python_artifact(),
        generate_setup=False,
        sdist=False,
        **dist_kwargs,
    )
