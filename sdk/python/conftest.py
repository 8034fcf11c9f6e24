"""What pytest does not import: modules that exist only inside of a component."""

collect_ignore = ["src/lantern/_guest.py", "src/lantern/_script.py", "build_interpreter.py"]
