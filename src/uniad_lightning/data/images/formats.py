"""Which files are images: the formats that Pillow decodes by itself, with their suffixes.

Left out are EPS (Pillow starts Ghostscript for it), WMF and EMF (drawn by Windows alone), FITS (Pillow does not apply
its scale), IPTC (hands its content to a decoder of any format), IM (deprecated by Pillow), those that Pillow only
recognises (MPEG, BUFR, GRIB, HDF5), and those without a suffix of their own (IMT, McIDAS, SPIDER, XV thumbnails).
"""

FORMATS: dict[str, tuple[str, ...]] = {
    "AVIF": (".avif", ".avifs"),
    "BLP": (".blp",),
    "BMP": (".bmp",),
    "CUR": (".cur",),
    "DCX": (".dcx",),
    "DDS": (".dds",),
    "DIB": (".dib",),
    "FLI": (".flc", ".fli"),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "GIF": (".gif",),
    "ICNS": (".icns",),
    "ICO": (".ico",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),  # MPO, several JPEGs in a file, is opened as JPEG
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "MSP": (".msp",),
    "PCD": (".pcd",),
    "PCX": (".pcx",),
    "PIXAR": (".pxr",),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "SGI": (".bw", ".rgb", ".rgba", ".sgi"),
    "SUN": (".ras",),
    "TGA": (".icb", ".tga", ".vda", ".vst"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
}

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
USUAL_SUFFIXES = ".bmp .jpeg .jpg .png .tif .tiff .webp and others that Pillow reads"  # for a message
