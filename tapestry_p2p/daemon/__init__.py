"""The trio shell around the pure rooms. libp2p only in transport.py and guard.py."""
