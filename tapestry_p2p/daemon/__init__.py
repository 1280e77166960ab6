"""The trio shell: transport, store, trainer link, control socket, run. libp2p only in transport and guard."""
