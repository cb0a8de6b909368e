"""Images, folders of images and text files as people pass them on. Nothing here needs torch or the toolbox."""
