"""Contract -> a ready client project for a programming language: proto, build file, example, README.

Pure: values in, files out. Used by `gateway.server.public`, which answers a project as a zip; `penstock api` unpacks
it. No generator runs here: what is generated must fit the run time that the reader's own build brings, so the build
file does it, and each README says what to install.
"""
