"""Where the pictures to judge come from: a file, folder, pattern, list, standard input, video or watched folder."""
