"""`python -m cliptrase.plan SUITE`: the runs of a suite, a line each."""

from cliptrase.plan import main

if __name__ == "__main__":
    main()
