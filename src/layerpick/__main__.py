"""`python -m layerpick`, as `accelerate launch -m layerpick` wants it."""

from layerpick.selector.app.entry import main

if __name__ == "__main__":
    main()
