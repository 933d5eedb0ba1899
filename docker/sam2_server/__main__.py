from sam2_server.cli import app

app()
