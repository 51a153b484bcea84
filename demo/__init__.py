"""The demo: build, deploy and run the workflow on a mixed set of images, in the rehearsal."""
