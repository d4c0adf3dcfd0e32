def test_import():
    import jaxrl.loop  # noqa: F401
