"""Where images to predict come from: files, folders, lists, videos, and a watched folder."""
