"""`config check | show | example`: what this member is set to, and whether it holds together."""

from cyclopts import App, Parameter

from tapestry_p2p.cli.output import say, show

app = App(
    name="config",
    help="Check or show the configuration.\n\nExample: tapestry config check",
    default_parameter=Parameter(negative=()),
)


@app.command
def check(*, json: bool = False) -> None:
    """Read the manifest, the configuration and the key, and look whether the data is there.

    Example: tapestry config check

    Parameters
    ----------
    json
        Print JSON.
    """
    from tapestry_p2p.daemon.base import need_base
    from tapestry_p2p.daemon.config import load_config, need_data, need_no_schedule
    from tapestry_p2p.daemon.keyfile import load_key
    from tapestry_p2p.daemon.manifest import load_manifest, task_file
    from tapestry_p2p.daemon.paths import find_paths
    from tapestry_p2p.gossip.identity import Identity

    paths = find_paths()
    manifest = load_manifest(paths.manifest)
    config = load_config(paths.member)
    need_no_schedule(config, manifest.training.schedule_steps)
    data = need_data(config, manifest.task.name)
    task_file(manifest, paths.config)
    need_base(manifest, paths)
    show(
        {
            "network": manifest.network.name,
            "network_id": manifest.network_id.hex(),
            "member": config.member.name,
            "id": Identity(load_key(paths.key)).peer_id,
            "task": manifest.task.name,
            "parameters": manifest.schema.parameters,
            "data": [str(path) for path in data],
            "sound": True,
        },
        as_json=json,
    )


@app.command(name="show")
def show_(*, origin: bool = False, json: bool = False) -> None:
    """Show the configuration in force: the file's, and what the environment overrides.

    Example: tapestry config show --origin

    Parameters
    ----------
    origin
        Show only what is no default, and where it came from.
    json
        Print JSON.
    """
    from msgspec import to_builtins

    from tapestry_p2p.daemon.config import dump_config, load_with_origin
    from tapestry_p2p.daemon.paths import find_paths

    config, origins = load_with_origin(find_paths().member)
    value = to_builtins(config)
    if origin:
        value = {
            key: {"value": value[key.split(".")[0]][key.split(".")[1]], "from": source}
            for key, source in sorted(origins.items())
        }
        lines = [f"{key} = {row['value']!r}  ({row['from']})" for key, row in value.items()]
        show(value, as_json=json, lines=lines)
        return
    show(value, as_json=json, lines=dump_config(config).splitlines())


@app.command
def example() -> None:
    """Show a configuration with every key, its meaning and its default.

    Example: tapestry config example > tapestry.toml
    """
    from tapestry_p2p.daemon.config import Config, dump_config

    say(*dump_config(Config()).splitlines())
